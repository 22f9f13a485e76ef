// Rules on single packets: header fields, sizes, and conditions on the payload of one packet.

enum PacketTests {
    static func hold(_ c: CompiledRule, _ p: Packet, _ flow: Flow, toServer: Bool) -> Bool {
        let want = c.rule.packet
        if let size = want.payloadSize, !size.holds(p.payload.count) { return false }
        if let type = want.icmpType, !type.holds(Int(p.icmpType)) { return false }
        if let code = want.icmpCode, !code.holds(Int(p.icmpCode)) { return false }
        if let ttl = want.ttl, !ttl.holds(Int(p.ttl)) { return false }
        if let flags = want.flags, p.transport != 6 || !flags.holds(p.flags) { return false }
        if want.addressesMatch, p.source != p.destination { return false }
        return streamSizes(want, flow)
    }

    static func streamSizes(_ want: PacketConditions, _ flow: Flow) -> Bool {
        for size in want.streamSizes {
            func sent(_ toServer: Bool) -> Int {
                guard let start = flow[toServer: toServer].start, let next = flow[toServer: toServer].next else { return 0 }
                return Int(next &- start) - 1
            }
            let client = size.test.holds(sent(true)), server = size.test.holds(sent(false))
            let holds =
                switch size.side {
                case .client: client
                case .server: server
                case .both: client && server
                case .either: client || server
                }
            if !holds { return false }
        }
        return true
    }

    /// Where the condition holds in this packet; nil when it does not.
    static func spot(_ c: CompiledCondition, _ p: Packet, _ bytes: Span<UInt8>) -> Spot? {
        switch c {
        case .all(let parts):
            var first: Spot?
            for part in parts {
                guard let s = spot(part, p, bytes) else { return nil }
                first = first ?? s
            }
            return first ?? Spot()
        case .any(let parts):
            for part in parts { if let s = spot(part, p, bytes) { return s } }
            return nil
        case .test(let test, _):
            let range: Range<Int>
            switch test.buffer {
            case .payload: range = p.payload
            case .ipHeader: range = p.header
            case .tcpHeader where p.transport == 6, .udpHeader where p.transport == 17: range = p.transportHeader
            case .icmpHeader where p.transport == 1 || p.transport == 58: range = p.transportHeader
            default: return nil
            }
            guard test.transforms.isEmpty else { return nil }
            var matcher = Matcher()
            guard matcher.holds(test.steps, from: 0, in: bytes.extracting(range), base: 0) else { return nil }
            return Spot(buffer: test.buffer, offset: matcher.firstOffset)
        }
    }
}
