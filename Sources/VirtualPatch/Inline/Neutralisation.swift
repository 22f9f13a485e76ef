// Writes a harmless request over a bad one: the same length, so that what comes before and after on the connection stays where it is.

enum Neutralisation {
    static let filler = UInt8(ascii: "0")
    /// A path that every server takes.
    private static let pathLimit = 1000

    /// A request of `total` bytes that names nothing a server has; nil where it cannot be that short. What it has to say stands in its first
    /// `available` bytes, all behind that is `filler`.
    static func request(total: Int, available: Int) -> [UInt8]? {
        if total == available, let pad = pad(total - bytes(0, nil).count) { return bytes(pad, nil) }
        // What the path cannot take is a body: its length has as many digits as it needs.
        for extra in 0..<10 {
            var length = total - bytes(extra, 0).count
            for _ in 0..<3 {
                guard length >= 0 else { return nil }
                length = total - bytes(extra, length).count
            }
            guard length >= 0 else { return nil }
            let head = bytes(extra, length)
            guard head.count + length == total else { continue }
            guard head.count <= available else { return nil }
            return head + [UInt8](repeating: filler, count: available - head.count)
        }
        return nil
    }

    private static func pad(_ n: Int) -> Int? { n >= 0 && n <= pathLimit ? n : nil }

    private static func bytes(_ pad: Int, _ length: Int?) -> [UInt8] {
        let body = length.map { "Content-Length: \($0)\r\n" } ?? ""
        return Array("GET /0\(String(repeating: "0", count: pad)) HTTP/1.1\r\nHost: 0\r\n\(body)\r\n".utf8)
    }
}

extension PacketFilter {
    /// The packet with a harmless request over each bad one; nil where bytes that were let through, or a framing that is not known, make
    /// that impossible.
    func neutralised(
        _ p: Packet, _ packet: Span<UInt8>, _ flow: Flow, _ passage: Passage, _ outcome: Engine.Outcome, before: UInt32
    ) -> [UInt8]? {
        guard let http = flow.http, !http.isLost else { return nil }
        let next = passage.delivered.next
        /// From a place among the client's bytes to one in the payload.
        let origin = http.fedBytes - Int(Int32(bitPattern: next &- p.sequence))
        let firstNew = Int(Int32(bitPattern: before &- p.sequence))
        var places: [(at: Int, bytes: [UInt8])] = []
        var until: Int?
        var latest = 0
        for request in Set(outcome.findings.map(\.request)) {
            guard let request, let position = http.positions.first(where: { $0.number == request }), until == nil || position.end != nil,
                let end = position.end ?? position.expectedEnd
            else { return nil }
            let start = position.start - origin
            guard start >= max(firstNew, 0), start < p.payload.count, position.end == nil || end - origin <= p.payload.count else {
                return nil
            }
            let available = min(end - origin, p.payload.count) - start
            guard let bytes = Neutralisation.request(total: end - position.start, available: available) else { return nil }
            places.append((start, bytes))
            latest = max(latest, request)
            if end - origin > p.payload.count { until = end - origin - p.payload.count }
        }
        // Bytes that came early are with the server already.
        guard !places.isEmpty, Int(Int32(bitPattern: next &- p.sequence)) == p.payload.count, until == nil || !passage.delivered.isWaiting
        else { return nil }
        for place in places {
            passage.delivered.amend(p.sequence &+ UInt32(truncatingIfNeeded: place.at), place.bytes)
        }
        if let until { passage.fillUntil = next &+ UInt32(truncatingIfNeeded: until) }
        passage.neutralised = latest
        return PacketEditor.overwritten(packet.copied, p, places)
    }

    /// The rest of a request that is being overwritten.
    func filling(_ p: Packet, _ passage: Passage) -> [(at: Int, bytes: [UInt8])] {
        guard let until = passage.fillUntil else { return [] }
        let from = max(0, Int(Int32(bitPattern: passage.delivered.next &- p.sequence)))
        let end = min(p.payload.count, Int(Int32(bitPattern: until &- p.sequence)))
        if !Engine.isBefore(passage.delivered.next, until) { passage.fillUntil = nil }
        return from < end ? [(from, [UInt8](repeating: Neutralisation.filler, count: end - from))] : []
    }

    /// How much of the payload stands before the first request that must not pass: earlier requests are answered first.
    func lengthBefore(_ p: Packet, _ flow: Flow, _ passage: Passage, _ outcome: Engine.Outcome, before: UInt32) -> Int {
        let firstNew = max(0, Int(Int32(bitPattern: before &- p.sequence)))
        guard let http = flow.http, let request = outcome.findings.compactMap(\.request).min(),
            let position = http.positions.first(where: { $0.number == request })
        else { return firstNew }
        let start = position.start - (http.fedBytes - Int(Int32(bitPattern: passage.delivered.next &- p.sequence)))
        return min(max(start, firstNew), p.payload.count)
    }
}

extension Finding {
    var request: Int? {
        switch self {
        case .alert(let a): a.request
        case .uninspectable(let u): u.request
        }
    }
    var isAlert: Bool { if case .alert = self { true } else { false } }
}
