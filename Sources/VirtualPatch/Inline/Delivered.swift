// What a client's bytes are to the server: the copy that was let through first, which any later copy of the same bytes is made to be.

/// One direction of one TCP connection. Sequence numbers wrap; all distances are taken from `next` and are shorter than 2^31.
struct Delivered {
    /// Bytes let through and not yet acknowledged: the largest receive window that systems offer by default, and some.
    static let keptLimitBytes = 8 << 20
    /// Bytes let through before an earlier one came.
    static let aheadLimitBytes = 4 << 20
    static let aheadLimit = 4096

    /// The number behind the last byte that came in order.
    private(set) var next: UInt32
    /// The server said that it has everything before this number.
    private(set) var acknowledged: UInt32
    /// The latest bytes before `next`; those before `keptFrom` are the server's already.
    private var kept: [UInt8] = []
    private var keptFrom = 0
    /// Bytes beyond `next` that were let through, disjoint and in order.
    private var ahead: [Piece] = []
    private(set) var aheadBytes = 0

    private struct Piece {
        var sequence: UInt32
        var bytes: [UInt8]
    }

    init(next: UInt32) {
        self.next = next
        acknowledged = next
    }

    var keptBytes: Int { kept.count - keptFrom + aheadBytes }
    var isWaiting: Bool { !ahead.isEmpty }

    /// What a segment is to what came before it.
    enum Fate: Equatable {
        /// The server has all of it.
        case old
        /// Its bytes from this place on continue the stream.
        case new(Int)
        /// An earlier byte is missing.
        case early
        /// It cannot be compared with what was let through, or there is no room to remember it: only dropping it is safe.
        case refused
    }

    func fate(_ sequence: UInt32, _ count: Int) -> Fate {
        let start = distance(sequence), end = start + count
        if end <= 0 {
            if end <= distance(acknowledged) { return .old }
            return max(start, distance(acknowledged)) >= keptFrom - kept.count ? .old : .refused
        }
        if start <= 0 { return max(start, distance(acknowledged)) >= keptFrom - kept.count ? .new(-start) : .refused }
        guard end <= Self.aheadLimitBytes, aheadBytes + count <= Self.aheadLimitBytes, ahead.count < Self.aheadLimit else {
            return .refused
        }
        return .early
    }

    /// From `next` to `sequence`.
    private func distance(_ sequence: UInt32) -> Int { Int(Int32(bitPattern: sequence &- next)) }

    /// Places of a segment whose bytes differ from the copy that was let through, and what they must be.
    func corrections(_ sequence: UInt32, _ payload: Span<UInt8>) -> [(at: Int, bytes: [UInt8])] {
        let start = distance(sequence)
        var out: [(at: Int, bytes: [UInt8])] = []
        // Before `next`: what the server has already is passed over by it.
        let from = max(start, distance(acknowledged), keptFrom - kept.count)
        let until = min(start + payload.count, 0)
        if from < until {
            let copy = kept.span.extracting((kept.count + from)..<(kept.count + until))
            if !Self.equal(copy, payload.extracting((from - start)..<(until - start))) { out.append((from - start, copy.copied)) }
        }
        for piece in ahead {
            let first = distance(piece.sequence)
            let a = max(start, first), b = min(start + payload.count, first + piece.bytes.count)
            guard a < b else { continue }
            let copy = piece.bytes.span.extracting((a - first)..<(b - first))
            if !Self.equal(copy, payload.extracting((a - start)..<(b - start))) { out.append((a - start, copy.copied)) }
        }
        return out
    }

    private static func equal(_ a: Span<UInt8>, _ b: Span<UInt8>) -> Bool { a.holdsSame(as: b) }

    /// Bytes that continue the stream, as they are let through.
    mutating func take(_ bytes: Span<UInt8>) {
        next = next &+ UInt32(truncatingIfNeeded: bytes.count)
        kept.append(bytes)
        if kept.count - keptFrom > Self.keptLimitBytes { keptFrom = kept.count - Self.keptLimitBytes }
        compact()
    }

    /// Bytes taken a moment ago are let through as these instead.
    mutating func amend(_ sequence: UInt32, _ bytes: [UInt8]) {
        let at = kept.count + distance(sequence)
        guard at >= 0, at + bytes.count <= kept.count else { return }
        kept.replaceSubrange(at..<(at + bytes.count), with: bytes)
    }

    /// Remembers the parts of an early segment that are not remembered yet.
    mutating func keep(_ sequence: UInt32, _ payload: Span<UInt8>) {
        var at = distance(sequence)
        let origin = at, end = at + payload.count
        var index = 0
        while at < end {
            while index < ahead.count, distance(ahead[index].sequence) + ahead[index].bytes.count <= at { index += 1 }
            let stop = index < ahead.count ? min(end, distance(ahead[index].sequence)) : end
            if at < stop {
                let piece = payload.extracting((at - origin)..<(stop - origin)).copied
                ahead.insert(Piece(sequence: next &+ UInt32(truncatingIfNeeded: at), bytes: piece), at: index)
                aheadBytes += piece.count
                index += 1
            }
            guard index < ahead.count else { break }
            at = max(stop, distance(ahead[index].sequence) + ahead[index].bytes.count)
        }
    }

    /// The early bytes that now continue the stream.
    mutating func takeFollowing() -> [UInt8]? {
        while let first = ahead.first {
            let start = distance(first.sequence)
            guard start <= 0 else { return nil }
            ahead.removeFirst()
            aheadBytes -= first.bytes.count
            guard start + first.bytes.count > 0 else { continue }
            let rest = first.bytes.span.extracting((-start)..<first.bytes.count).copied
            take(rest.span)
            return rest
        }
        return nil
    }

    /// The server acknowledged; false when it has bytes that were never seen here.
    mutating func acknowledge(_ number: UInt32, afterEnd isEnded: Bool) -> Bool {
        var number = number
        if isEnded, number == next &+ 1 { number = next }
        guard distance(number) <= 0 else { return false }
        guard distance(number) > distance(acknowledged) else { return true }
        acknowledged = number
        keptFrom = max(keptFrom, kept.count + distance(number))
        compact()
        return true
    }

    /// Begins anew behind bytes that were not seen.
    mutating func restart(at number: UInt32) {
        next = number
        acknowledged = number
        kept = []
        keptFrom = 0
        ahead.removeAll { Int32(bitPattern: $0.sequence &- number) < 0 }
        aheadBytes = ahead.reduce(0) { $0 + $1.bytes.count }
    }

    private mutating func compact() {
        if keptFrom == kept.count {
            kept.removeAll(keepingCapacity: kept.capacity <= 64 << 10)
            keptFrom = 0
        } else if keptFrom > 256 << 10, keptFrom > kept.count / 2 {
            kept.removeFirst(keptFrom)
            keptFrom = 0
        }
    }
}
