// Rules on the bytes of a TCP stream without a named buffer: looked at as the bytes are delivered, in a window.

enum StreamRules {
    /// Rules that wait for more of a stream; when there are more, the oldest go, and that is said.
    static let pendingLimit = 256

    static func look(_ bytes: Span<UInt8>, _ flow: Flow, toServer: Bool, _ inspector: Inspector, _ fired: Set<Int>, isScanned: Bool = false)
    {
        guard inspector.rules.hasStreamRules else { return }
        let longest = inspector.rules.prefilters[.packet]?.longest ?? 1
        let state = flow[toServer: toServer].stream ?? StreamState()
        flow[toServer: toServer].stream = state
        state.store.append(bytes, wholeLimit: 0)
        let from = max(state.store.base, state.store.scanned - longest + 1)
        // What the packet itself holds was found before: only what begins in earlier bytes is new.
        let end = isScanned ? min(state.store.total, state.store.scanned + longest - 1) : state.store.total
        var found: [Int] = []
        if !isScanned || from < state.store.scanned {
            let kept = state.store.bytes
            found = inspector.candidates(
                .packet, kept.span.extracting((from - state.store.base)..<(end - state.store.base)))
        }
        if isScanned { found += inspector.foundInPacket }
        state.store.scanned = state.store.total
        guard !found.isEmpty || !state.pending.isEmpty else { return }
        for index in found {
            let c = inspector.rules.rules[index]
            guard c.inspectsStream else { continue }
            if c.moments != [.packet] {
                // Besides the stream it looks at parts of a message: judged when those are there.
                let messages = flow.http?.openMessages()
                let message = toServer ? messages?.request : messages?.response
                guard let message, !message.seen.contains(index) else { continue }
                guard message.seen.count < pendingLimit else {
                    inspector.uninspectable(.memoryLimit, c, flow, nil)
                    continue
                }
                message.seen.append(index)
                continue
            }
            guard !fired.contains(index) else {
                state.told[index] = state.store.total
                continue
            }
            guard !state.pending.contains(where: { $0.rule.index == index }) else { continue }
            guard inspector.applies(c, flow, toServer: toServer) else { continue }
            if state.pending.count >= pendingLimit {
                inspector.uninspectable(.memoryLimit, state.pending.removeFirst().rule, flow, nil)
            }
            let told = max(state.told[index] ?? 0, state.beginning)
            var new = PendingRule(rule: c, progress: [c.streamTests.map { TestProgress($0, from: told) }])
            new.isBlind = c.before != .nothing && state.store.base > told
            state.pending.append(new)
        }
        var pending = state.pending
        state.pending = []
        for i in pending.indices { advance(&pending[i], state, flow, toServer: toServer, inspector) }
        pending.removeAll { $0.isDone }
        state.pending = pending
    }

    private static func advance(_ p: inout PendingRule, _ state: StreamState, _ flow: Flow, toServer: Bool, _ inspector: Inspector) {
        guard PacketTests.streamSizes(p.rule.rule.packet, flow) else { return }
        var end = 0
        let (answer, spot) = evaluate(p.rule.condition, &p, state.store, &end)
        switch answer {
        case .yes:
            p.isDone = true
            state.told[p.rule.index] = max(end, (state.told[p.rule.index] ?? 0) + 1)
            inspector.fire(p.rule, spot, flow, request: nil, toServer: toServer)
        case .no: p.isDone = !p.rule.isUnfiltered
        case .cannot:
            p.isDone = true
            undecided(p, flow, inspector)
        case .later:
            let hasBegun = p.progress[0].contains(where: \.hasBegun)
            // Its literal brings it back.
            p.isDone = !hasBegun && !p.rule.isUnfiltered
            if p.isBlind, hasBegun || p.rule.before == .first { undecided(p, flow, inspector) }
            p.isBlind = false
        }
    }

    /// Said once of a rule for each flow.
    private static func undecided(_ p: PendingRule, _ flow: Flow, _ inspector: Inspector) {
        guard flow.undecided.insert(p.rule.index).inserted else { return }
        inspector.uninspectable(p.progress[0].contains(where: \.hitsLimit) ? .matchLimit : .streamTooLong, p.rule, flow, nil)
    }

    private static func evaluate(_ c: CompiledCondition, _ p: inout PendingRule, _ store: StreamStore, _ end: inout Int) -> (Answer, Spot) {
        switch c {
        case .all(let parts):
            var result = Answer.yes
            var spot = Spot()
            for part in parts {
                let (answer, s) = evaluate(part, &p, store, &end)
                if answer == .no { return (.no, s) }
                if spot.buffer == nil { spot = s }
                if answer != .yes, result != .cannot { result = answer }
            }
            return (result, spot)
        case .any(let parts):
            var result = Answer.no
            for part in parts {
                let (answer, s) = evaluate(part, &p, store, &end)
                if answer == .yes { return (.yes, s) }
                if answer != .no, result != .cannot { result = answer }
            }
            return (result, Spot())
        case .test(let test, let slot):
            guard test.buffer == .payload, slot >= 0, test.transforms.isEmpty else { return (.no, Spot()) }
            let answer = test.advanceOnStream(&p.progress[0][slot], store)
            end = max(end, p.progress[0][slot].groups.map(\.end).max() ?? 0)
            return (answer, Spot(buffer: .payload, offset: p.progress[0][slot].offset))
        }
    }
}

extension StreamState {
    /// A request is over: what looks at all that has come has seen the whole of it. False when no rule waits for more.
    func rest() -> Bool {
        pending.removeAll { !$0.isStreaming || !$0.progress[0].contains(where: \.hasBegun) }
        beginning = store.total
        store.keepLast(pending.map { $0.neededBytes(store.total) }.max() ?? 0)
        return !pending.isEmpty
    }
}

extension PendingRule {
    /// The latest bytes of a stream without which it could not go on.
    func neededBytes(_ total: Int) -> Int {
        var most = 0
        for (slot, test) in rule.streamTests.enumerated() {
            for (g, at) in progress[0][slot].groups.enumerated() where at.segment < test.groups[g].segments.count {
                most = max(most, total - min(at.begunAt ?? total, at.looked - test.groups[g].segments[at.segment].literalBytes))
            }
        }
        return most
    }

    /// What it asks for is in a window, wherever in the stream that is.
    var isStreaming: Bool { rule.streamTests.allSatisfy { $0.streaming == .streaming } }
}
