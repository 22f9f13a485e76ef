// Rules on the bytes of a TCP stream without a named buffer: looked at as the bytes are delivered, in a window.

enum StreamRules {
    /// Rules that wait for more of a stream; when there are more, the oldest go, and that is said.
    static let pendingLimit = 256
    /// Bytes behind its literal in which a rule that looks at the whole is tried again with each delivery: as much as is kept anyway.
    static let retriedBytes = StreamingClass.windowBytes

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
            if let waiting = state.pending.firstIndex(where: { $0.rule.index == index }) {
                // Its literal again: what is behind this one is looked at as closely.
                if !c.isUnfiltered { state.pending[waiting].since = state.store.total - bytes.count }
                continue
            }
            guard inspector.applies(c, flow, toServer: toServer) else { continue }
            if state.pending.count >= pendingLimit {
                inspector.uninspectable(.memoryLimit, state.pending.removeFirst().rule, flow, nil)
            }
            let progress = c.streamTests.map { TestProgress($0, from: state.told[index] ?? 0) }
            state.pending.append(PendingRule(rule: c, progress: [progress], since: state.store.total - bytes.count))
        }
        var pending = state.pending
        state.pending = []
        for i in pending.indices { advance(&pending[i], state, flow, toServer: toServer, inspector) }
        pending.removeAll { $0.isDone }
        state.pending = pending
    }

    private static func advance(_ p: inout PendingRule, _ state: StreamState, _ flow: Flow, toServer: Bool, _ inspector: Inspector) {
        guard PacketTests.streamSizes(p.rule.rule.packet, flow) else { return }
        let seen = state.store.total - p.since
        var end = 0
        let (answer, spot) = evaluate(p.rule.condition, &p, state.store, state.told[p.rule.index] ?? 0, &end)
        switch answer {
        case .yes:
            p.isDone = true
            state.told[p.rule.index] = max(end, (state.told[p.rule.index] ?? 0) + 1)
            inspector.fire(p.rule, spot, flow, request: nil, toServer: toServer)
        case .no: p.isDone = p.isStreaming || seen > retriedBytes
        case .cannot:
            p.isDone = true
            inspector.uninspectable(.matchLimit, p.rule, flow, nil)
        case .later: break
        }
    }

    private static func evaluate(
        _ c: CompiledCondition, _ p: inout PendingRule, _ store: StreamStore, _ told: Int, _ end: inout Int
    ) -> (Answer, Spot) {
        switch c {
        case .all(let parts):
            var result = Answer.yes
            var spot = Spot()
            for part in parts {
                let (answer, s) = evaluate(part, &p, store, told, &end)
                if answer == .no { return (.no, s) }
                if spot.buffer == nil { spot = s }
                if answer != .yes { result = answer }
            }
            return (result, spot)
        case .any(let parts):
            var result = Answer.no
            for part in parts {
                let (answer, s) = evaluate(part, &p, store, told, &end)
                if answer == .yes { return (.yes, s) }
                if answer != .no { result = answer }
            }
            return (result, Spot())
        case .test(let test, let slot):
            guard test.buffer == .payload, slot >= 0 else { return (.no, Spot()) }
            if test.streaming == .streaming {
                let answer = test.advance(&p.progress[0][slot], store, isEnd: false)
                end = max(end, p.progress[0][slot].groups.map(\.end).max() ?? 0)
                return (answer, Spot(buffer: .payload, offset: p.progress[0][slot].offset))
            }
            // A stream has no end that a rule could wait for: negations and expressions hold for what has come.
            var matcher = Matcher()
            let from = max(store.base, told)
            guard from <= store.total else { return (.no, Spot()) }
            let holds = matcher.holds(
                test.steps, from: 0, in: store.bytes.span.extracting((from - store.base)..<store.bytes.count), base: from)
            end = max(end, store.total)
            if matcher.hitLimit { return (.cannot, Spot()) }
            return (holds ? .yes : .no, Spot(buffer: .payload, offset: matcher.firstOffset))
        }
    }
}

extension PendingRule {
    /// Each test keeps its own place in the stream; else what has come is looked at as a whole, and more may change the answer.
    var isStreaming: Bool { rule.streamTests.allSatisfy { $0.streaming == .streaming } }
}
