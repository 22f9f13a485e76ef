// What rules remember: bits on flows and hosts, and how often they were told.

/// Bounded: the oldest entries of hosts go when there are too many.
struct Memory {
    static let entryLimit = 1 << 16

    private struct HostKey: Hashable {
        var number: Int
        var a: Address
        var b: Address?
    }
    private struct CountKey: Hashable {
        var rule: Int
        var a: Address?
        var b: Address?
    }
    private var hosts: [HostKey: Instant] = [:]
    private var counts: [CountKey: (start: Instant, count: Int)] = [:]

    private func key(_ bit: HostBit, _ number: Int, _ flow: Flow, _ toServer: Bool) -> HostKey {
        let source = toServer ? flow.name.client : flow.name.server
        let destination = toServer ? flow.name.server : flow.name.client
        return switch bit.track {
        case .source: HostKey(number: number, a: source)
        case .destination: HostKey(number: number, a: destination)
        case .pair: HostKey(number: number, a: flow.name.client, b: flow.name.server)
        }
    }

    /// The same for other rules; how often rules were told begins anew.
    func renamed(_ numbers: [Int: Int]) -> Memory {
        var out = Memory()
        for (key, until) in hosts {
            guard let number = numbers[key.number] else { continue }
            out.hosts[HostKey(number: number, a: key.a, b: key.b)] = until
        }
        return out
    }

    /// Whether the bits that the rule waits for are as it wants them.
    func holds(_ rule: CompiledRule, _ flow: Flow, toServer: Bool, _ now: Instant) -> Bool {
        for (operation, bits) in rule.flowBits {
            switch operation {
            case .isset: if !bits.contains(where: flow.bits.contains) { return false }
            case .isnotset: if bits.contains(where: flow.bits.contains) { return false }
            default: break
            }
        }
        for (bit, number) in rule.hostBits where bit.operation == .isset || bit.operation == .isnotset {
            let isSet = hosts[key(bit, number, flow, toServer)].map { $0 > now } ?? false
            if isSet != (bit.operation == .isset) { return false }
        }
        return true
    }

    mutating func remember(_ rule: CompiledRule, _ flow: Flow, toServer: Bool, _ now: Instant) {
        for (operation, bits) in rule.flowBits {
            for bit in bits {
                switch operation {
                case .set: flow.bits.insert(bit)
                case .unset: flow.bits.remove(bit)
                case .toggle: if flow.bits.remove(bit) == nil { flow.bits.insert(bit) }
                default: break
                }
            }
        }
        for (bit, number) in rule.hostBits {
            let key = key(bit, number, flow, toServer)
            switch bit.operation {
            case .set: set(key, bit.expire, now)
            case .unset: hosts[key] = nil
            case .toggle: if hosts[key].map({ $0 > now }) ?? false { hosts[key] = nil } else { set(key, bit.expire, now) }
            default: break
            }
        }
    }

    private mutating func set(_ key: HostKey, _ seconds: Int, _ now: Instant) {
        if hosts.count >= Self.entryLimit { hosts = hosts.filter { $0.value > now } }
        if hosts.count >= Self.entryLimit { hosts.removeAll() }
        hosts[key] = Instant(nanoseconds: now.nanoseconds &+ UInt64(seconds) &* 1_000_000_000)
    }

    /// A match of a rule with a threshold: whether it counts as a match at all, and whether it is told.
    mutating func counted(_ rule: CompiledRule, _ flow: Flow, toServer: Bool, _ now: Instant) -> (acts: Bool, isTold: Bool) {
        guard let t = rule.rule.threshold else { return (true, true) }
        if t.kind == .backoff {
            var state = flow.thresholds[rule.index] ?? (0, t.count)
            state.count += 1
            let tells = state.count == state.next
            if tells { state.next = state.next.multipliedReportingOverflow(by: t.multiplier).partialValue }
            flow.thresholds[rule.index] = state
            return (true, tells)
        }
        let source = toServer ? flow.name.client : flow.name.server
        let destination = toServer ? flow.name.server : flow.name.client
        let key: CountKey =
            switch t.track {
            case .source: CountKey(rule: rule.index, a: source)
            case .destination: CountKey(rule: rule.index, a: destination)
            case .rule, .flow: CountKey(rule: rule.index)
            case .both: CountKey(rule: rule.index, a: source, b: destination)
            }
        let span = UInt64(t.seconds) * 1_000_000_000
        if counts.count >= Self.entryLimit { counts.removeAll() }
        var entry = counts[key] ?? (now, 0)
        if now.nanoseconds &- entry.start.nanoseconds > span, now > entry.start { entry = (now, 0) }
        entry.count += 1
        defer { counts[key] = entry }
        switch t.kind {
        case .limit: return (true, entry.count <= t.count)
        case .threshold:
            let isReached = entry.count >= t.count
            if isReached { entry.count = 0 }
            return (isReached, isReached)
        default: return (entry.count >= t.count, entry.count == t.count)
        }
    }
}
