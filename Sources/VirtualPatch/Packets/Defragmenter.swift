// Puts fragments of IP packets together again, for captures: inline the kernel has done so. What came first stays.

/// Packets whose fragments are not all there yet. Bounded in number, size and time.
struct Defragmenter {
    static let packetLimit = 1024
    static let sizeLimit = 65_535
    static let secondsLimit: UInt64 = 60

    private struct Key: Hashable {
        var source: Address
        var destination: Address
        var identification: UInt32
        var transport: UInt8
    }
    private struct Partial {
        var first: Instant
        var header: [UInt8] = []
        var content: [UInt8] = []
        /// Sorted, apart from each other.
        var have: [Range<Int>] = []
        var total: Int?
    }
    private var partials: [Key: Partial] = [:]

    enum Outcome {
        case waiting
        case whole([UInt8])
        case overLimit
    }

    mutating func add(_ p: Packet, _ f: Packet.Fragment, _ bytes: Span<UInt8>, at now: Instant) -> Outcome {
        let key = Key(
            source: p.source, destination: p.destination, identification: f.identification, transport: p.isV6 ? 0 : p.transport)
        var partial = partials[key] ?? Partial(first: now)
        if now.seconds &- partial.first.seconds > Self.secondsLimit, now > partial.first { partial = Partial(first: now) }
        let end = f.offset + p.content.count
        guard end <= Self.sizeLimit else {
            partials[key] = nil
            return .overLimit
        }
        if partials.count >= Self.packetLimit, partials[key] == nil {
            partials = partials.filter { now.seconds &- $0.value.first.seconds <= Self.secondsLimit }
            if partials.count >= Self.packetLimit { return .overLimit }
        }
        if f.offset == 0 { partial.header = bytes.extracting(p.header).copied }
        if f.isLast, partial.total == nil { partial.total = end }
        if partial.content.count < end { partial.content += Array(repeating: 0, count: end - partial.content.count) }
        // Only what is not there yet is taken.
        var at = f.offset
        for range in partial.have where range.upperBound > at && range.lowerBound < end {
            copy(bytes, p, f, at..<max(at, min(end, range.lowerBound)), &partial)
            at = max(at, range.upperBound)
        }
        if at < end { copy(bytes, p, f, at..<end, &partial) }
        partial.have = Self.merged(partial.have + [f.offset..<end])
        partials[key] = partial
        guard let total = partial.total, let first = partial.have.first, first.lowerBound == 0, first.upperBound >= total,
            !partial.header.isEmpty
        else { return .waiting }
        partials[key] = nil
        return .whole(Self.rebuilt(partial, total, p))
    }

    private func copy(_ bytes: Span<UInt8>, _ p: Packet, _ f: Packet.Fragment, _ range: Range<Int>, _ partial: inout Partial) {
        for i in range { partial.content[i] = bytes[p.content.lowerBound + i - f.offset] }
    }

    private static func merged(_ ranges: [Range<Int>]) -> [Range<Int>] {
        var out: [Range<Int>] = []
        for r in ranges.sorted(by: { $0.lowerBound < $1.lowerBound }) {
            if let last = out.last, r.lowerBound <= last.upperBound {
                out[out.count - 1] = last.lowerBound..<max(last.upperBound, r.upperBound)
            } else {
                out.append(r)
            }
        }
        return out
    }

    /// A packet without fragments: the first one's header, all content.
    private static func rebuilt(_ partial: Partial, _ total: Int, _ p: Packet) -> [UInt8] {
        var header = partial.header
        if p.isV6 {
            let length = min(total, 65_535)
            header[4] = UInt8(length >> 8)
            header[5] = UInt8(length & 255)
            header[6] = p.transport
        } else {
            let length = min(header.count + total, 65_535)
            header[2] = UInt8(length >> 8)
            header[3] = UInt8(length & 255)
            header[6] = 0
            header[7] = 0
            header[10] = 0
            header[11] = 0
            let sum = Checksum.of(header.span)
            header[10] = UInt8(sum >> 8)
            header[11] = UInt8(sum & 255)
        }
        return header + partial.content.prefix(total)
    }
}
