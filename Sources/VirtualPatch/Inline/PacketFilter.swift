// The recipe of inline judging: a queued packet comes in; what it carries is made to agree with what was let through before; what is
// new goes before the rules; it is let through, changed or dropped.

import ELF

/// Pure: no socket, no clock. One per thread; both directions of a connection go to the same one, in the order of the queue.
///
/// What the server reads is what was inspected: the first copy of a byte that is let through counts, every later copy is made equal to it.
/// Bytes are let through out of order, once the server has shown that it counts as the filter does, but the missing one is let through only
/// when all that it completes was judged.
public final class PacketFilter {
    let engine: Engine
    let options: FilterOptions
    private let policies: [UInt32: PortPolicy]
    private var own = FilterCounters()
    private var aging = Aging()
    private var halfOpen = Aging()
    private var halfOpenCount = 0
    private var number: UInt64 = 0
    var keptBytes = 0

    /// Connections without a packet for so long are forgotten.
    static let idleSeconds: UInt64 = 3600
    /// The same while there are many.
    static let crowdedSeconds: UInt64 = 300
    static let halfOpenSeconds: UInt64 = 60
    static let finishedSeconds: UInt64 = 120
    /// A connection that keeps no more than this goes on when the memory for all is used up.
    static let smallBytes = 4 << 10

    public init(_ rules: CompiledRules, _ options: FilterOptions) throws(Failure) {
        var engineOptions = options.engine
        engineOptions.requestsOnly = true
        engineOptions.enforces = false
        engineOptions.alertsBlock = true
        engineOptions.picksUpMidstream = true
        engineOptions.verifiesChecksums = false
        engine = try Engine(rules, engineOptions)
        self.options = options
        policies = Dictionary(options.ports.map { (Self.key($0.transport, $0.port), $0) }) { first, _ in first }
    }

    private static func key(_ transport: UInt8, _ port: UInt16) -> UInt32 { UInt32(transport) << 16 | UInt32(port) }

    public var flowCount: Int { engine.flowCount }

    public var counters: FilterCounters {
        var all = own
        all.requests = engine.counters.requests
        all.encrypted = engine.counters.encrypted.total
        return all
    }

    /// Other rules from here on. Connections go on: a request that has begun is judged by the rules it began under, the next by the new ones.
    public func replaceRules(_ rules: CompiledRules) throws(Failure) { try engine.replaceRules(rules) }

    /// Judges one IP packet. `packet` may be cut behind its headers for replies; `wireBytes` is its true length. `wasSeen`: the kernel
    /// remembers the connection as one that was judged from its beginning.
    public func judge(
        _ packet: Span<UInt8>, wireBytes: Int, isInbound: Bool, isChecksumVerified: Bool, wasSeen: Bool, at time: Instant
    ) -> Judgement {
        age(time)
        if isInbound {
            own.packets += 1
            own.bytes += wireBytes
        } else {
            own.replies += 1
        }
        guard case .success(let p) = Packet.read(packet, checksums: isInbound && !isChecksumVerified, isCut: !isInbound), p.fragment == nil
        else {
            guard isInbound else { return Judgement() }
            own.malformed += 1
            return Judgement(options.observes ? .accept : .drop)
        }
        guard isInbound else {
            if p.transport == 6 { return reply(p, packet, wireBytes: wireBytes, time) }
            return Judgement()
        }
        guard let policy = policies[Self.key(p.transport, p.destinationPort)] else { return Judgement() }
        var judgement = p.transport == 6 ? segment(p, packet, policy, wasSeen: wasSeen, time) : datagram(p, packet, policy, time)
        if options.observes {
            judgement.delivery = .accept
            judgement.inject = []
        }
        return judgement
    }

    // MARK: UDP

    private func datagram(_ p: Packet, _ packet: Span<UInt8>, _ policy: PortPolicy, _ time: Instant) -> Judgement {
        let known = engine.flowCount
        engine.begin(at: time)
        let outcome = engine.inspectTransport(p, packet, time)
        if engine.flowCount > known {
            own.flows += 1
            let name = engine.name(p, toServer: true)
            if let flow = engine.flows[name] { watch(name, flow) }
        }
        var judgement = Judgement()
        let ends = tell(outcome, p, packet, policy, nil, time, &judgement)
        if ends { judgement.delivery = .drop }
        return judgement
    }

    // MARK: TCP from the client

    private func segment(_ p: Packet, _ packet: Span<UInt8>, _ policy: PortPolicy, wasSeen: Bool, _ time: Instant) -> Judgement {
        let isSyn = p.flags & Packet.syn != 0
        // Nobody answers a connection that he did not ask for.
        if isSyn, p.flags & Packet.ack != 0 { return Judgement(.drop) }
        let name = engine.name(p, toServer: true)
        var found = engine.flows[name]
        if let flow = found, isSyn, isAnother(p, flow) {
            drop(name, flow)
            found = nil
        }
        if found == nil {
            // What carries nothing for the server's program needs no memory here.
            guard isSyn || p.payload.count > 0 && p.flags & Packet.rst == 0 else { return Judgement() }
            guard engine.flows.count < engine.options.flowLimit else {
                own.refused += 1
                return Judgement(.drop)
            }
            found = begin(p, name, isSyn: isSyn, wasSeen: wasSeen, policy, time)
        }
        guard let flow = found, let passage = flow.passage else { return Judgement(.drop) }
        flow.lastSeen = time
        if isSyn {
            var judgement = opening(p, packet)
            judgement.mark = .seen
            return judgement
        }
        if flow.isCondemned { return refuse(p, packet, flow, passage, policy) }
        if passage.isBypassed { return Judgement() }
        if p.flags & Packet.rst != 0 {
            if p.sequence == passage.delivered.next { passage.isReset = true }
            return Judgement()
        }
        if !flow.isEstablished, p.flags & Packet.ack != 0, passage.isAnswered || passage.isConfirmed || p.payload.count > 0 {
            flow.isEstablished = true
            if passage.start != nil { halfOpenCount -= 1 }
        }
        return content(p, packet, flow, passage, policy, time)
    }

    /// Whether a SYN begins another connection than the one that is known under the same name.
    private func isAnother(_ p: Packet, _ flow: Flow) -> Bool {
        guard let passage = flow.passage, passage.start != p.sequence else { return false }
        return flow.isCondemned || passage.isFinished || !passage.isAnswered && passage.start != nil
    }

    /// Data in a SYN are delivered by some servers and not by others: they are taken away, and the client sends them again.
    private func opening(_ p: Packet, _ packet: Span<UInt8>) -> Judgement {
        guard p.payload.count > 0 else { return Judgement() }
        own.corrected += 1
        return Judgement(.replace(PacketEditor.cut(packet, p, to: 0)))
    }

    private func begin(_ p: Packet, _ name: FlowName, isSyn: Bool, wasSeen: Bool, _ policy: PortPolicy, _ time: Instant) -> Flow {
        let flow = Flow(name, at: time)
        flow.wasMidstream = !isSyn
        flow.sawSyn = isSyn
        let passage = Passage(next: isSyn ? p.sequence &+ 1 : p.sequence, start: isSyn ? p.sequence : nil)
        flow.passage = passage
        engine.flows[name] = flow
        own.flows += 1
        engine.counters.flows += 1
        watch(name, flow)
        if isSyn {
            halfOpenCount += 1
            halfOpen.add(name, flow)
            while let oldest = halfOpen.next(where: { halfOpenCount > options.halfOpenLimit || !isHalfOpen($0) }) {
                if isHalfOpen(oldest), let flow = engine.flows[oldest.name] { drop(oldest.name, flow) }
            }
        } else if wasSeen {
            // Silent for so long that it was forgotten: where the server's program is in it nobody knows any more.
            passage.lost = .streamGap
            passage.isEarlier = policy.onUninspectable == .pass
        } else {
            own.earlierFlows += 1
            passage.isEarlier = true
        }
        return flow
    }

    private func watch(_ name: FlowName, _ flow: Flow) {
        number &+= 1
        flow.number = number
        aging.add(name, flow)
    }

    private func isHalfOpen(_ entry: Aging.Entry) -> Bool {
        guard let flow = engine.flows[entry.name], flow.number == entry.number else { return false }
        return !flow.isEstablished && !flow.isCondemned
    }

    private func content(
        _ p: Packet, _ packet: Span<UInt8>, _ flow: Flow, _ passage: Passage, _ policy: PortPolicy, _ time: Instant
    ) -> Judgement {
        var fate = passage.delivered.fate(p.sequence, p.payload.count)
        let isEmpty = p.payload.count == 0
        if !isEmpty {
            // Before the server has shown what it counts from, only what continues is let through.
            if fate == .early, !passage.isConfirmed { fate = .refused }
            if case .new = fate {
                if passage.end != nil { fate = .refused }
                if keptBytes > options.keptLimitBytes, passage.delivered.keptBytes > Self.smallBytes { fate = .refused }
            }
            if fate == .early, passage.end != nil || keptBytes > options.keptLimitBytes { fate = .refused }
        }
        guard fate != .refused || isEmpty else {
            own.refused += 1
            return Judgement(.drop)
        }
        var edited: [UInt8]?
        if p.flags & Packet.urg != 0 {
            edited = PacketEditor.withoutUrgency(packet, p)
        }
        var corrections = isEmpty ? [] : passage.delivered.corrections(p.sequence, packet.extracting(p.payload))
        if !isEmpty, passage.fillUntil != nil { corrections = filling(p, passage) + corrections }
        if !corrections.isEmpty { edited = PacketEditor.overwritten(edited ?? packet.copied, p, corrections) }
        if let edited {
            own.corrected += 1
            return settled(p, edited.span, edited, fate, flow, passage, policy, time)
        }
        return settled(p, packet, nil, fate, flow, passage, policy, time)
    }

    /// The packet as it would be let through goes before the rules.
    private func settled(
        _ p: Packet, _ packet: Span<UInt8>, _ edited: [UInt8]?, _ fate: Delivered.Fate, _ flow: Flow, _ passage: Passage,
        _ policy: PortPolicy, _ time: Instant
    ) -> Judgement {
        var judgement = Judgement(edited.map { .replace($0) } ?? .accept)
        let before = passage.delivered.next
        let keptBefore = passage.delivered.keptBytes
        defer { keptBytes += passage.delivered.keptBytes - keptBefore }
        engine.begin(at: time)
        if passage.isEarlier { engine.findAgain(flow) }
        if let reason = passage.lost {
            passage.lost = nil
            engine.uninspectable(reason, flow)
        }
        flow[toServer: true].packets += 1
        flow[toServer: true].bytes += p.payload.count
        let payload = packet.extracting(p.payload)
        let fired = engine.inspectPacket(p, packet, flow, toServer: true)
        switch fate {
        case .new(let from) where p.payload.count > 0:
            let fresh = payload.extracting(from..<payload.count)
            passage.delivered.take(fresh)
            engine.deliver(fresh, flow, toServer: true, fired, isScanned: from == 0)
            while let rest = passage.delivered.takeFollowing() { engine.deliver(rest.span, flow, toServer: true, fired) }
        case .early: passage.delivered.keep(p.sequence, payload)
        default: break
        }
        if p.flags & Packet.fin != 0, passage.end == nil,
            p.sequence &+ UInt32(truncatingIfNeeded: p.payload.count) == passage.delivered.next
        {
            passage.end = passage.delivered.next
            engine.end(flow)
        }
        engine.count(flow)
        engine.judgeProtocol(flow, toServer: true)
        var outcome = engine.settle(flow)
        if passage.neutralised > 0 { outcome = afterNeutralisation(outcome, passage) }
        if outcome.verdict != .pass || !outcome.findings.isEmpty,
            tell(outcome, p, packet, policy, passage, time, &judgement)
        {
            return block(p, packet, flow, passage, policy, outcome, before: before, judgement)
        }
        if passage.isConfirmed || passage.start != nil, mayLeave(payload, flow, passage) {
            passage.isBypassed = true
            own.bypassed += 1
            judgement.mark = .bypassed
        }
        return judgement
    }

    /// Encrypted from here on, as both ends said.
    private func mayLeave(_ payload: Span<UInt8>, _ flow: Flow, _ passage: Passage) -> Bool {
        guard options.bypassesEncrypted, passage.isServerEncrypted, !passage.delivered.isWaiting, payload.count > 5 else { return false }
        switch flow.application {
        case .tls: return payload[0] == 23 && payload[1] == 3
        case .ssh:
            // The client's last packet in clear says that it uses the new keys from here on.
            let keys: [UInt8] = [0, 0, 0, 12, 10, 21]
            return LiteralSearch.stands(keys, in: payload, at: payload.count - 16, ignoresCase: false)
        default: return false
        }
    }

    // MARK: blocking

    /// Writes the events; true when the packet must not pass.
    private func tell(
        _ outcome: Engine.Outcome, _ p: Packet, _ packet: Span<UInt8>, _ policy: PortPolicy, _ passage: Passage?, _ time: Instant,
        _ judgement: inout Judgement
    ) -> Bool {
        var ends = false
        let isEarlier = passage?.isEarlier ?? false
        let excerpt = packet.extracting(
            p.payload.lowerBound..<min(p.payload.upperBound, p.payload.lowerBound + FilterEvent.excerptLimitBytes))
        for finding in outcome.findings {
            switch finding {
            case .alert(let a):
                own.blocked += 1
                ends = true
                judgement.events.append(
                    FilterEvent(
                        kind: options.observes ? .wouldBlock : .blocked, time: time, flow: a.flow, rule: a.rule, sid: a.sid,
                        message: a.message, cves: a.cves, buffer: a.buffer, offset: a.offset, request: a.request, action: policy.onBlock,
                        excerpt: excerpt.copied))
            case .uninspectable(let u):
                // A connection from before the filter is told of once.
                if isEarlier, passage?.isTold == true { continue }
                passage?.isTold = true
                own.uninspectable += 1
                let passes = isEarlier || policy.onUninspectable == .pass || options.observes
                if !passes { ends = true }
                judgement.events.append(
                    FilterEvent(
                        kind: passes ? .uninspectablePassed : .uninspectable, time: time, flow: u.flow, rule: u.rule, request: u.request,
                        reason: u.reason, excerpt: excerpt.copied))
            }
        }
        if outcome.verdict != .pass { ends = true }
        return ends && !options.observes
    }

    /// A request that was overwritten has done all it could.
    private func afterNeutralisation(_ outcome: Engine.Outcome, _ passage: Passage) -> Engine.Outcome {
        var rest = outcome
        rest.findings.removeAll { $0.isAlert && $0.request.map { $0 <= passage.neutralised } ?? false }
        if rest.findings.isEmpty { rest.verdict = .pass }
        return rest
    }

    private func block(
        _ p: Packet, _ packet: Span<UInt8>, _ flow: Flow, _ passage: Passage, _ policy: PortPolicy, _ outcome: Engine.Outcome,
        before: UInt32, _ told: Judgement
    ) -> Judgement {
        var judgement = told
        if policy.onBlock == .neutralise, outcome.findings.allSatisfy(\.isAlert),
            let harmless = neutralised(p, packet, flow, passage, outcome, before: before)
        {
            judgement.delivery = .replace(harmless)
            return judgement
        }
        let length = policy.onBlock == .neutralise ? lengthBefore(p, flow, passage, outcome, before: before) : 0
        flow.isCondemned = true
        flow.letGo()
        engine.count(flow)
        for i in judgement.events.indices where judgement.events[i].action == .neutralise { judgement.events[i].action = .reset }
        if policy.onBlock == .neutralise, passage.neutralised > 0 || flow[toServer: true].packets > 1 || length > 0 {
            // Responses to what came before are on their way.
            passage.isWinding = true
            passage.delivered.restart(at: p.sequence &+ UInt32(truncatingIfNeeded: length))
            judgement.delivery = length > 0 ? .replace(PacketEditor.cut(packet, p, to: length)) : .drop
            return judgement
        }
        passage.delivered.restart(at: before)
        judgement.delivery = .replace(PacketEditor.reset(packet, p, sequence: before))
        if policy.onBlock != .silent { judgement.inject.append(PacketEditor.answerReset(p, payloadBytes: p.payload.count)) }
        return judgement
    }

    /// A packet of a connection that was ended.
    private func refuse(_ p: Packet, _ packet: Span<UInt8>, _ flow: Flow, _ passage: Passage, _ policy: PortPolicy) -> Judgement {
        if p.flags & Packet.rst != 0 { return Judgement(.drop) }
        if passage.isWinding {
            // Acknowledgements of responses pass; the first repetition ends it.
            guard p.payload.count > 0 || p.flags & Packet.fin != 0 else { return Judgement() }
            guard !Engine.isBefore(passage.delivered.next, p.sequence) else { return Judgement(.drop) }
            passage.isWinding = false
        }
        var judgement = Judgement(.replace(PacketEditor.reset(packet, p, sequence: passage.delivered.next)))
        if policy.onBlock != .silent { judgement.inject.append(PacketEditor.answerReset(p, payloadBytes: p.payload.count)) }
        return judgement
    }

    // MARK: TCP from the server

    private func reply(_ p: Packet, _ packet: Span<UInt8>, wireBytes: Int, _ time: Instant) -> Judgement {
        let name = engine.name(p, toServer: false)
        guard let flow = engine.flows[name], let passage = flow.passage else { return Judgement() }
        flow.lastSeen = time
        flow[toServer: false].packets += 1
        let keptBefore = passage.delivered.keptBytes
        defer { keptBytes += passage.delivered.keptBytes - keptBefore }
        if p.flags & Packet.rst != 0 { passage.isReset = true }
        if p.flags & Packet.fin != 0 { passage.isServerDone = true }
        guard p.flags & Packet.ack != 0, !flow.isCondemned else { return Judgement() }
        if p.flags & Packet.syn != 0 {
            answer(p, name, flow, passage, time)
            return Judgement()
        }
        if p.payload.count > 0, !passage.sawServerData {
            passage.sawServerData = true
            let bytes = packet.extracting(p.payload)
            passage.isServerEncrypted =
                bytes.count > 5 && bytes[0] == 22 && bytes[1] == 3
                || LiteralSearch.stands(Array("SSH-".utf8), in: bytes, at: 0, ignoresCase: false)
        }
        let old = passage.delivered.acknowledged
        guard passage.delivered.acknowledge(p.acknowledgement, afterEnd: passage.end != nil) else {
            // The server has bytes that never came by here: a queue that overflowed, or a beginning that nobody saw.
            let policy = policies[Self.key(6, p.sourcePort)]
            passage.delivered.restart(at: p.acknowledgement)
            passage.isConfirmed = true
            passage.lost = .streamGap
            if policy?.isOpen ?? true { passage.isEarlier = true }
            engine.lose(flow)
            return Judgement()
        }
        if passage.delivered.acknowledged != old || passage.start == nil { passage.isConfirmed = true }
        return Judgement()
    }

    /// The server answers a SYN: its number is what the connection counts from.
    private func answer(_ p: Packet, _ name: FlowName, _ flow: Flow, _ passage: Passage, _ time: Instant) {
        if let start = passage.start, p.acknowledgement == start &+ 1 {
            passage.isAnswered = true
            flow[toServer: false].start = p.sequence
            return
        }
        // The client began anew, and the server knows the former connection no more.
        drop(name, flow)
        let fresh = Flow(name, at: time)
        fresh.sawSyn = true
        let next = Passage(next: p.acknowledgement, start: p.acknowledgement &- 1)
        next.isAnswered = true
        fresh.passage = next
        fresh[toServer: false].start = p.sequence
        halfOpenCount += 1
        engine.flows[name] = fresh
        watch(name, fresh)
        halfOpen.add(name, fresh)
    }

    // MARK: forgetting

    private func drop(_ name: FlowName, _ flow: Flow) {
        engine.forget(flow)
        if let passage = flow.passage {
            keptBytes -= passage.delivered.keptBytes
            if passage.start != nil, !flow.isEstablished { halfOpenCount -= 1 }
        }
        engine.flows[name] = nil
    }

    /// A few connections are looked at with each packet; those that are silent for long go.
    private func age(_ time: Instant) {
        for _ in 0..<2 {
            guard let entry = aging.next(where: { _ in true }) else { break }
            guard let flow = engine.flows[entry.name], flow.number == entry.number else { continue }
            if time > flow.lastSeen, time.seconds &- flow.lastSeen.seconds > limit(flow) {
                drop(entry.name, flow)
            } else {
                aging.add(entry.name, flow)
            }
        }
    }

    private func limit(_ flow: Flow) -> UInt64 {
        guard let passage = flow.passage else { return Engine.idleSeconds }
        if passage.isFinished || flow.isCondemned { return Self.finishedSeconds }
        if !flow.isEstablished { return Self.halfOpenSeconds }
        return engine.flows.count > engine.options.flowLimit / 2 ? Self.crowdedSeconds : Self.idleSeconds
    }
}

/// Connections in the order in which they are looked at next.
struct Aging {
    struct Entry {
        var name: FlowName
        /// Of the connection: another one under the same name has another.
        var number: UInt64
    }
    private var entries: [Entry] = []
    private var first = 0

    mutating func add(_ name: FlowName, _ flow: Flow) { entries.append(Entry(name: name, number: flow.number)) }

    mutating func next(where isWanted: (Entry) -> Bool) -> Entry? {
        guard first < entries.count, isWanted(entries[first]) else { return nil }
        let entry = entries[first]
        first += 1
        if first > 4096, first > entries.count / 2 {
            entries.removeFirst(first)
            first = 0
        }
        return entry
    }
}
