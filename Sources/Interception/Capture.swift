// Reads packet captures, pcap and pcapng, from memory: each packet's time and its bytes from the IP header on.

import ELF
import VirtualPatch

/// One file's packets in order. The whole file is in memory, read with a cap by whoever opened it.
public struct Capture {
    /// A packet longer than this is no packet.
    public static let packetLimitBytes = 1 << 20
    public static let interfaceLimit = 4096

    /// One record of the file.
    public struct Record: Sendable, Equatable {
        /// Counts all records of the file from 1, also those that carry no IP packet.
        public var number: Int
        public var time: Instant
        /// The frame within the file.
        public var frame: Range<Int>
        /// The IP packet within the file; nil where the frame carries none.
        public var packet: Range<Int>?
        /// Fewer bytes were kept than the packet had.
        public var isCut: Bool
    }

    public let bytes: [UInt8]
    public private(set) var records: [Record] = []
    private let place: String

    private struct Interface {
        var link: UInt32
        var ticksPerSecond: UInt64
    }

    /// Failures: `capture-malformed`.
    public init(_ bytes: [UInt8], name: String) throws(Failure) {
        self.bytes = bytes
        place = name
        guard bytes.count >= 24 else { throw malformed("it is too short for a capture", 0) }
        switch u32(0, false) {
        case 0xa1b2_c3d4: try classic(isLittle: false, ticks: 1_000_000)
        case 0xd4c3_b2a1: try classic(isLittle: true, ticks: 1_000_000)
        case 0xa1b2_3c4d: try classic(isLittle: false, ticks: 1_000_000_000)
        case 0x4d3c_b2a1: try classic(isLittle: true, ticks: 1_000_000_000)
        case 0x0a0d_0d0a: try blocks()
        default: throw malformed("it is neither pcap nor pcapng", 0)
        }
    }

    private func malformed(_ text: String, _ at: Int) -> Failure { Failure("capture-malformed", text, at: "\(place)+\(at)") }

    private func u16(_ i: Int, _ isLittle: Bool) -> UInt16 {
        isLittle ? UInt16(bytes[i]) | UInt16(bytes[i + 1]) << 8 : UInt16(bytes[i]) << 8 | UInt16(bytes[i + 1])
    }
    private func u32(_ i: Int, _ isLittle: Bool) -> UInt32 {
        let a = UInt32(u16(i, isLittle)), b = UInt32(u16(i + 2, isLittle))
        return isLittle ? a | b << 16 : a << 16 | b
    }

    private static func nanoseconds(_ ticks: UInt64, _ perSecond: UInt64) -> UInt64 {
        let seconds = ticks / perSecond, rest = ticks % perSecond
        return seconds &* 1_000_000_000 &+ (rest.multipliedFullWidth(by: 1_000_000_000).high == 0 ? rest &* 1_000_000_000 / perSecond : 0)
    }

    private mutating func classic(isLittle: Bool, ticks: UInt64) throws(Failure) {
        let link = u32(20, isLittle) & 0x0fff_ffff
        var at = 24
        while at < bytes.count {
            // A capture that was cut off at its end is read up to there.
            guard bytes.count - at >= 16 else { return }
            let seconds = UInt64(u32(at, isLittle)), part = UInt64(u32(at + 4, isLittle))
            let kept = Int(u32(at + 8, isLittle)), had = Int(u32(at + 12, isLittle))
            guard kept <= Self.packetLimitBytes else { throw malformed("a packet of \(kept) bytes", at) }
            guard bytes.count - at - 16 >= kept else { return }
            let frame = (at + 16)..<(at + 16 + kept)
            add(Instant(nanoseconds: seconds &* 1_000_000_000 &+ part &* (1_000_000_000 / ticks)), frame, link, isCut: kept < had)
            at = frame.upperBound
        }
    }

    private mutating func blocks() throws(Failure) {
        var at = 0
        var isLittle = true
        var interfaces: [Interface] = []
        while bytes.count - at >= 12 {
            var type = u32(at, isLittle)
            if type == 0x0a0d_0d0a {
                guard bytes.count - at >= 28 else { return }
                isLittle = u32(at + 8, true) == 0x1a2b_3c4d
                guard u32(at + 8, isLittle) == 0x1a2b_3c4d else { throw malformed("no byte order", at) }
                interfaces = []
                type = u32(at, isLittle)
            }
            let length = Int(u32(at + 4, isLittle))
            guard length >= 12, length % 4 == 0 else { throw malformed("a block of \(length) bytes", at) }
            guard bytes.count - at >= length else { return }
            let body = (at + 8)..<(at + length - 4)
            switch type {
            case 1 where body.count >= 8:
                guard interfaces.count < Self.interfaceLimit else { throw malformed("more than \(Self.interfaceLimit) interfaces", at) }
                interfaces.append(Interface(link: UInt32(u16(body.lowerBound, isLittle)), ticksPerSecond: resolution(body, isLittle)))
            case 6 where body.count >= 20:
                let b = body.lowerBound
                let index = Int(u32(b, isLittle))
                let kept = Int(u32(b + 12, isLittle)), had = Int(u32(b + 16, isLittle))
                guard index < interfaces.count, kept <= body.count - 20 else {
                    throw malformed("a packet block that does not hold together", at)
                }
                let ticks = UInt64(u32(b + 4, isLittle)) << 32 | UInt64(u32(b + 8, isLittle))
                let time = Instant(nanoseconds: Self.nanoseconds(ticks, interfaces[index].ticksPerSecond))
                add(time, (b + 20)..<(b + 20 + kept), interfaces[index].link, isCut: kept < had)
            case 3 where body.count >= 4:
                guard let first = interfaces.first else { throw malformed("a packet before its interface", at) }
                let had = Int(u32(body.lowerBound, isLittle))
                let kept = min(had, body.count - 4)
                add(Instant(nanoseconds: 0), (body.lowerBound + 4)..<(body.lowerBound + 4 + kept), first.link, isCut: kept < had)
            default: break
            }
            at += length
        }
    }

    /// Option 9 of an interface: how fine its clock is.
    private func resolution(_ body: Range<Int>, _ isLittle: Bool) -> UInt64 {
        var at = body.lowerBound + 8
        while at + 4 <= body.upperBound {
            let code = u16(at, isLittle), length = Int(u16(at + 2, isLittle))
            if code == 0 { break }
            if code == 9, length >= 1, at + 4 < body.upperBound {
                let value = bytes[at + 4]
                let power = Int(value & 0x7f)
                if value & 0x80 != 0 { return power < 63 ? 1 << UInt64(power) : 1_000_000 }
                guard power <= 9 else { return 1_000_000_000 }
                return (0..<power).reduce(1) { n, _ in n * 10 }
            }
            at += 4 + (length + 3) / 4 * 4
        }
        return 1_000_000
    }

    private mutating func add(_ time: Instant, _ frame: Range<Int>, _ link: UInt32, isCut: Bool) {
        let packet = LinkLayer.packet(bytes.span, frame, link: link)
        records.append(Record(number: records.count + 1, time: time, frame: frame, packet: packet, isCut: isCut))
    }
}
