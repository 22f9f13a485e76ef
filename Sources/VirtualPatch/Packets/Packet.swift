// Reads one IP packet: addresses, fragments, tunnels, TCP, UDP and ICMP. Every length is checked; what is cut short is said so.

/// Offsets into the packet's bytes; nothing is copied.
struct Packet {
    enum Defect { case truncated, malformed, tooManyHeaders }

    /// Extension headers and tunnels of one packet.
    static let headerLimit = 16

    var source = Address(v4: 0)
    var destination = Address(v4: 0)
    var isV6 = false
    var ttl: UInt8 = 0
    /// Of the transport, after extension headers.
    var transport: UInt8 = 0
    var header = 0..<0
    /// What the IP header carries.
    var content = 0..<0
    var fragment: Fragment?
    var sourcePort: UInt16 = 0
    var destinationPort: UInt16 = 0
    var sequence: UInt32 = 0
    var acknowledgement: UInt32 = 0
    var flags: UInt8 = 0
    var icmpType: UInt8 = 0
    var icmpCode: UInt8 = 0
    var payload = 0..<0
    var transportHeader = 0..<0

    struct Fragment {
        var identification: UInt32
        /// In bytes.
        var offset: Int
        var isLast: Bool
    }

    static let fin: UInt8 = 1, syn: UInt8 = 2, rst: UInt8 = 4, ack: UInt8 = 16, urg: UInt8 = 32

    /// Reads the headers of `bytes`, or says what is wrong with them. `isCut`: the end of the packet is not there, and need not be.
    static func read(_ bytes: Span<UInt8>, checksums: Bool, isCut: Bool = false) -> Result<Packet, DefectError> {
        guard bytes.count >= 1 else { return .failure(DefectError(.truncated)) }
        switch bytes[0] >> 4 {
        case 4: return v4(bytes, checksums, isCut)
        case 6: return v6(bytes, checksums, isCut)
        default: return .failure(DefectError(.malformed))
        }
    }

    struct DefectError: Error {
        let defect: Defect
        init(_ defect: Defect) { self.defect = defect }
    }

    private static func v4(_ b: Span<UInt8>, _ checksums: Bool, _ isCut: Bool) -> Result<Packet, DefectError> {
        guard b.count >= 20 else { return .failure(DefectError(.truncated)) }
        let headerLength = Int(b[0] & 15) * 4
        let total = Int(b.u16(2))
        guard headerLength >= 20, headerLength <= b.count else { return .failure(DefectError(.malformed)) }
        // Segmentation offload leaves the length at 0.
        let end = total == 0 || isCut ? min(b.count, total == 0 ? b.count : total) : total
        guard end >= headerLength, end <= b.count else { return .failure(DefectError(.truncated)) }
        if checksums, Checksum.of(b.extracting(0..<headerLength)) != 0 { return .failure(DefectError(.malformed)) }
        var p = Packet()
        p.ttl = b[8]
        p.transport = b[9]
        p.source = Address(v4: b.u32(12))
        p.destination = Address(v4: b.u32(16))
        p.header = 0..<headerLength
        p.content = headerLength..<end
        let word = b.u16(6)
        let offset = Int(word & 0x1fff) * 8
        if offset != 0 || word & 0x2000 != 0 {
            p.fragment = Fragment(identification: UInt32(b.u16(4)), offset: offset, isLast: word & 0x2000 == 0)
            return .success(p)
        }
        return p.readTransport(b, checksums)
    }

    private static func v6(_ b: Span<UInt8>, _ checksums: Bool, _ isCut: Bool) -> Result<Packet, DefectError> {
        guard b.count >= 40 else { return .failure(DefectError(.truncated)) }
        var p = Packet()
        p.isV6 = true
        p.ttl = b[7]
        p.source = Address(high: b.u64(8), low: b.u64(16))
        p.destination = Address(high: b.u64(24), low: b.u64(32))
        p.header = 0..<40
        let length = Int(b.u16(4))
        let end = length == 0 || isCut ? min(b.count, length == 0 ? b.count : 40 + length) : 40 + length
        guard end <= b.count else { return .failure(DefectError(.truncated)) }
        var next = b[6]
        var at = 40
        for _ in 0..<headerLimit {
            switch next {
            case 0, 43, 60, 135:
                guard at + 8 <= end else { return .failure(DefectError(.truncated)) }
                let size = (Int(b[at + 1]) + 1) * 8
                guard at + size <= end else { return .failure(DefectError(.truncated)) }
                next = b[at]
                at += size
            case 51:
                guard at + 8 <= end else { return .failure(DefectError(.truncated)) }
                let size = (Int(b[at + 1]) + 2) * 4
                guard at + size <= end else { return .failure(DefectError(.truncated)) }
                next = b[at]
                at += size
            case 44:
                guard at + 8 <= end else { return .failure(DefectError(.truncated)) }
                let word = b.u16(at + 2)
                p.transport = b[at]
                p.content = (at + 8)..<end
                if word & 0xfff9 != 0 {
                    p.fragment = Fragment(identification: b.u32(at + 4), offset: Int(word & 0xfff8), isLast: word & 1 == 0)
                    return .success(p)
                }
                next = b[at]
                at += 8
            default:
                p.transport = next
                p.content = at..<end
                return p.readTransport(b, checksums)
            }
        }
        return .failure(DefectError(.tooManyHeaders))
    }

    /// Ports and payload of what `content` holds.
    mutating func readTransport(_ b: Span<UInt8>, _ checksums: Bool) -> Result<Packet, DefectError> {
        let start = content.lowerBound, end = content.upperBound
        switch transport {
        case 6:
            guard end - start >= 20 else { return .failure(DefectError(.truncated)) }
            let size = Int(b[start + 12] >> 4) * 4
            guard size >= 20, start + size <= end else { return .failure(DefectError(.malformed)) }
            if checksums, Checksum.ofTransport(self, b) != 0 { return .failure(DefectError(.malformed)) }
            sourcePort = b.u16(start)
            destinationPort = b.u16(start + 2)
            sequence = b.u32(start + 4)
            acknowledgement = b.u32(start + 8)
            flags = b[start + 13]
            transportHeader = start..<(start + size)
            payload = (start + size)..<end
        case 17:
            guard end - start >= 8 else { return .failure(DefectError(.truncated)) }
            let length = Int(b.u16(start + 4))
            guard length == 0 || (length >= 8 && start + length <= end) else { return .failure(DefectError(.malformed)) }
            if checksums, b.u16(start + 6) != 0, Checksum.ofTransport(self, b) != 0 { return .failure(DefectError(.malformed)) }
            sourcePort = b.u16(start)
            destinationPort = b.u16(start + 2)
            transportHeader = start..<(start + 8)
            payload = (start + 8)..<(length == 0 ? end : start + length)
        case 1, 58:
            guard end - start >= 4 else { return .failure(DefectError(.truncated)) }
            icmpType = b[start]
            icmpCode = b[start + 1]
            transportHeader = start..<min(end, start + 8)
            payload = min(end, start + 8)..<end
        default:
            payload = content
        }
        return .success(self)
    }

    /// The packet inside a tunnel: IP in IP, GRE.
    func inner(_ b: Span<UInt8>) -> Range<Int>? {
        switch transport {
        case 4, 41: return content
        case 47:
            let start = content.lowerBound
            guard content.count >= 4 else { return nil }
            let flags = b.u16(start), kind = b.u16(start + 2)
            var at = start + 4
            if flags & 0x8000 != 0 || flags & 0x4000 != 0 { at += 4 }
            if flags & 0x2000 != 0 { at += 4 }
            if flags & 0x1000 != 0 { at += 4 }
            if flags & 0x4000 != 0 { return nil }
            if flags & 7 == 1 {
                // Version 1 carries PPP.
                if flags & 0x80 != 0 { at += 4 }
                guard at + 4 <= content.upperBound else { return nil }
                if b[at] == 0xff, b[at + 1] == 3 { at += 2 }
                guard at + 2 <= content.upperBound, b.u16(at) == 0x21 || b.u16(at) == 0x57 else { return nil }
                at += 2
                return at..<content.upperBound
            }
            guard at <= content.upperBound else { return nil }
            if kind == 0x6558 {
                guard at + 14 <= content.upperBound else { return nil }
                let type = b.u16(at + 12)
                return type == 0x0800 || type == 0x86dd ? (at + 14)..<content.upperBound : nil
            }
            return kind == 0x0800 || kind == 0x86dd ? at..<content.upperBound : nil
        default: return nil
        }
    }
}

/// The internet checksum.
enum Checksum {
    static func sum(_ b: Span<UInt8>, _ start: UInt32 = 0) -> UInt32 {
        var total = UInt64(start)
        var i = 0
        while i + 1 < b.count {
            total &+= UInt64(b[i]) << 8 | UInt64(b[i + 1])
            i += 2
        }
        if i < b.count { total &+= UInt64(b[i]) << 8 }
        while total >> 16 != 0 { total = total & 0xffff &+ total >> 16 }
        return UInt32(total)
    }

    /// 0 when the bytes, their checksum included, are intact.
    static func of(_ b: Span<UInt8>) -> UInt16 { ~UInt16(truncatingIfNeeded: sum(b)) }

    static func ofTransport(_ p: Packet, _ b: Span<UInt8>) -> UInt16 {
        var pseudo = UInt32(p.transport) &+ UInt32(truncatingIfNeeded: p.content.count & 0xffff)
        for address in [p.source, p.destination] {
            let words = p.isV6 ? [address.high, address.low] : [address.low & 0xffff_ffff]
            for word in words { for shift in [48, 32, 16, 0] { pseudo &+= UInt32(word >> UInt64(shift) & 0xffff) } }
        }
        return ~UInt16(truncatingIfNeeded: sum(b.extracting(p.content), pseudo))
    }
}

extension Span where Element == UInt8 {
    /// Big endian; the caller has checked that the bytes are there.
    func u16(_ i: Int) -> UInt16 { UInt16(self[i]) << 8 | UInt16(self[i + 1]) }
    func u32(_ i: Int) -> UInt32 { UInt32(u16(i)) << 16 | UInt32(u16(i + 2)) }
    func u64(_ i: Int) -> UInt64 { UInt64(u32(i)) << 32 | UInt64(u32(i + 4)) }
}
