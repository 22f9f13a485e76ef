// The recipe: a packet comes in; it is read, put in its flow, its bytes in order, its messages before the rules; a verdict comes out.

import ELF

/// Pure: no socket, no file, no clock. One per thread; the rules are shared.
public final class Engine {
    private(set) var inspector: Inspector
    let options: EngineOptions
    var flows: [FlowName: Flow] = [:]
    private var defragmenter = Defragmenter()
    public internal(set) var counters = Counters()
    private var lastSweep = Instant(nanoseconds: 0)

    /// What was seen and what was not; nothing is silent.
    public struct Counters: Sendable, Equatable {
        public var packets = 0
        public var malformed = 0
        public var flows = 0
        public var requests = 0
        /// Flows whose content is encrypted: rules on what they carry cannot see it.
        public var encrypted = Encrypted()
        public var uninspectable = 0
        public var alerts = 0

        public init() {}
    }

    /// Encrypted flows by their kind.
    public struct Encrypted: Sendable, Equatable {
        public var tls = 0
        public var ssh = 0
        public var quic = 0
        public var total: Int { tls + ssh + quic }
    }

    /// What one packet led to.
    public struct Outcome: Sendable, Equatable {
        public var verdict = Verdict.pass
        public var findings: [Finding] = []
        /// The flow had been ended before: nothing of this packet was looked at.
        public var wasCondemned = false
        /// The rule whose action the verdict is.
        public var decidedBy: String?

        public init(verdict: Verdict = .pass, wasCondemned: Bool = false) {
            self.verdict = verdict
            self.wasCondemned = wasCondemned
        }
    }

    /// Flows without a packet for so long are forgotten.
    static let idleSeconds: UInt64 = 600

    public init(_ rules: CompiledRules, _ options: EngineOptions = EngineOptions()) throws(Failure) {
        inspector = try Inspector(rules, options)
        self.options = options
    }

    public var flowCount: Int { flows.count }

    // MARK: one request

    /// Judges the bytes of one client as they would be sent on one connection. `toServer` false: what the server sends.
    public func inspect(request bytes: [UInt8], responses: [UInt8] = [], at time: Instant = Instant(nanoseconds: 0)) -> Outcome {
        let name = FlowName(
            client: Address(v4: 0x7f000001), server: Address(v4: 0x7f000001), clientPort: 40000, serverPort: 80, transport: 6)
        let flow = Flow(name, at: time)
        flow.isEstablished = true
        flow.application = .http
        inspector.now = time
        inspector.packetNumber += 1
        flow.http = HTTPSession(inspector, flow)
        // In pieces, as a wire would bring them: what is kept, and so the answer, must not depend on who asks.
        for (all, toServer) in [(bytes, true), (responses, false)] {
            for start in stride(from: 0, to: all.count, by: Self.pieceBytes) {
                feed(flow, all.span.extracting(start..<min(all.count, start + Self.pieceBytes)), toServer: toServer)
            }
        }
        end(flow)
        return settle(flow)
    }

    // MARK: packets

    /// One IP packet. `capturedPackets` numbers findings.
    public func inspect(packet bytes: Span<UInt8>, at time: Instant) -> Outcome {
        counters.packets += 1
        inspector.packetNumber = counters.packets
        inspector.now = time
        sweep(time)
        return inspect(bytes, depth: 0, time, isRebuilt: false)
    }

    /// Everything that still waits is decided: the capture is over.
    public func finish() -> Outcome {
        var all = Outcome()
        inspector.forgetPayload()
        for (_, flow) in flows.sorted(by: { $0.value.lastSeen < $1.value.lastSeen }) {
            forget(flow)
            all.findings += settle(flow).findings
        }
        flows.removeAll()
        return all
    }

    // MARK: what holds packets back asks for

    /// Another packet; what it leads to is numbered and dated so.
    func begin(at time: Instant) {
        counters.packets += 1
        inspector.packetNumber = counters.packets
        inspector.now = time
    }

    func uninspectable(_ reason: Uninspectable.Reason, _ flow: Flow) { inspector.uninspectable(reason, nil, flow, nil) }

    /// Bytes are missing: what comes next begins somewhere.
    func lose(_ flow: Flow) {
        flow.letGo()
        if flow.application != .tls, flow.application != .ssh { flow.application = nil }
        flow.probed = 0
        count(flow)
    }

    /// Where the beginning was not seen, every packet may begin a request.
    func findAgain(_ flow: Flow) {
        if flow.http?.isLost == true {
            flow.http = nil
            flow.application = nil
        }
        guard flow.application == nil else { return }
        flow.probed = 0
        if !HTTPSession.looksLikeRequest(flow[toServer: true].beginning.span) { flow[toServer: true].beginning = [] }
    }

    /// Other rules from here on. A request that has begun is judged by the rules it began under, the next by the new ones.
    func replaceRules(_ rules: CompiledRules) throws(Failure) {
        let fresh = try Inspector(rules, options)
        let renamed = rules.numbers(ofBitsFrom: inspector.rules)
        for (_, flow) in flows {
            flow.bits = Set(flow.bits.compactMap { renamed[$0] })
            flow.thresholds = [:]
            flow.undecided = []
            for toServer in [true, false] { flow[toServer: toServer].stream = nil }
            if let http = flow.http, !http.isLost { http.retire(for: fresh) }
        }
        fresh.memory = inspector.memory.renamed(renamed)
        inspector.forgetPayload()
        fresh.packetNumber = inspector.packetNumber
        fresh.now = inspector.now
        fresh.keptBytes = inspector.keptBytes
        inspector = fresh
    }

    private func inspect(_ bytes: Span<UInt8>, depth: Int, _ time: Instant, isRebuilt: Bool) -> Outcome {
        let packet: Packet
        switch Packet.read(bytes, checksums: options.verifiesChecksums && !isRebuilt) {
        case .failure:
            // A receiver drops it too; inline the kernel has.
            counters.malformed += 1
            return Outcome()
        case .success(let p): packet = p
        }
        if let fragment = packet.fragment {
            switch defragmenter.add(packet, fragment, bytes, at: time) {
            case .waiting: return Outcome()
            case .overLimit:
                let flow = Flow(name(packet, toServer: true), at: time)
                inspector.uninspectable(.fragmentLimit, nil, flow, nil)
                return settle(flow)
            case .whole(let whole): return inspect(whole.span, depth: depth, time, isRebuilt: true)
            }
        }
        var outer = Outcome()
        if let inner = packet.inner(bytes) {
            outer = inspectTransport(packet, bytes, time)
            guard depth < 4 else { return outer }
            let inside = inspect(bytes.extracting(inner), depth: depth + 1, time, isRebuilt: false)
            outer.findings += inside.findings
            if inside.verdict != .pass { outer.verdict = inside.verdict }
            outer.wasCondemned = outer.wasCondemned || inside.wasCondemned
            return outer
        }
        return inspectTransport(packet, bytes, time)
    }

    func name(_ p: Packet, toServer: Bool) -> FlowName {
        toServer
            ? FlowName(
                client: p.source, server: p.destination, clientPort: p.sourcePort, serverPort: p.destinationPort, transport: p.transport)
            : FlowName(
                client: p.destination, server: p.source, clientPort: p.destinationPort, serverPort: p.sourcePort, transport: p.transport)
    }

    /// The packet's flow, and whether it goes to the server.
    private func flow(_ p: Packet, _ bytes: Span<UInt8>, _ time: Instant) -> (Flow, toServer: Bool)? {
        let forward = name(p, toServer: true), backward = name(p, toServer: false)
        let isSyn = p.transport == 6 && p.flags & (Packet.syn | Packet.ack) == Packet.syn
        if let flow = flows[forward] {
            // The same ports again: a new connection.
            guard isSyn, flow[toServer: true].isFinished || flow[toServer: false].isFinished, !flow.isCondemned else { return (flow, true) }
            forget(flow)
            flows[forward] = nil
        } else if let flow = flows[backward] {
            guard isSyn, flow[toServer: true].isFinished || flow[toServer: false].isFinished, !flow.isCondemned else {
                return (flow, false)
            }
            forget(flow)
            flows[backward] = nil
        }
        guard flows.count < options.flowLimit else {
            let flow = Flow(forward, at: time)
            inspector.uninspectable(.memoryLimit, nil, flow, nil)
            return (flow, true)
        }
        counters.flows += 1
        var toServer = true
        if p.transport == 6, !isSyn {
            toServer =
                p.flags & Packet.syn == 0 && !(p.sourcePort < 1024 && p.destinationPort >= 1024)
                && !ProtocolProbe.isResponse(bytes.extracting(p.payload))
        }
        let flow = Flow(toServer ? forward : backward, at: time)
        if p.transport == 6 {
            flow.sawSyn = isSyn
            flow.wasMidstream = !isSyn
        }
        flows[flow.name] = flow
        return (flow, toServer)
    }

    func inspectTransport(_ p: Packet, _ bytes: Span<UInt8>, _ time: Instant) -> Outcome {
        guard let (flow, toServer) = flow(p, bytes, time) else { return Outcome() }
        if flow.isCondemned {
            flow.lastSeen = time
            return Outcome(verdict: .drop, wasCondemned: true)
        }
        flow.lastSeen = time
        flow[toServer: toServer].packets += 1
        flow[toServer: toServer].bytes += p.payload.count
        if p.transport != 6, flow[toServer: !toServer].packets > 0 { flow.isEstablished = true }
        let firedOnPacket = inspectPacket(p, bytes, flow, toServer: toServer)
        if p.transport == 6 {
            tcp(p, bytes, flow, toServer: toServer, firedOnPacket)
        } else if p.transport == 17, p.payload.count > 0 {
            detect(flow, bytes.extracting(p.payload), toServer: toServer)
            if flow.application == nil { flow.probed += 1 }
            flow.message?.feed(bytes.extracting(p.payload), toServer: toServer, flow, inspector)
        }
        count(flow)
        judgeProtocol(flow, toServer: toServer)
        return settle(flow)
    }

    /// Rules that ask for a protocol and nothing else.
    func judgeProtocol(_ flow: Flow, toServer: Bool) {
        guard flow.application != nil else { return }
        for index in inspector.rules.protocolOnly {
            let c = inspector.rules.rules[index]
            if inspector.applies(c, flow, toServer: toServer) { inspector.fire(c, Spot(), flow, request: nil, toServer: toServer) }
        }
    }

    /// Rules that look at packets alone.
    func inspectPacket(_ p: Packet, _ bytes: Span<UInt8>, _ flow: Flow, toServer: Bool) -> Set<Int> {
        var fired: Set<Int> = []
        let payload = bytes.extracting(p.payload)
        inspector.findInPacket(payload, hasBody: toServer && flow.http != nil)
        for index in inspector.foundInPacket {
            let c = inspector.rules.rules[index]
            // Without a connection to follow there are only packets.
            let isFollowed = p.transport == 6 && !(flow.wasMidstream && !options.picksUpMidstream)
            guard c.inspectsPackets || (!isFollowed && !c.onlyStream && !c.isProtocolOnly), c.moments == [.packet] else { continue }
            if c.isAddressOnly, flow[toServer: toServer].packets > 1 { continue }
            guard inspector.applies(c, flow, toServer: toServer) else { continue }
            guard PacketTests.hold(c, p, flow, toServer: toServer) else { continue }
            if let spot = PacketTests.spot(c.condition, p, bytes) {
                fired.insert(index)
                inspector.fire(c, spot, flow, request: nil, toServer: toServer, isFlowWide: c.isAboutFlow)
            }
        }
        return fired
    }

    // MARK: TCP

    private func tcp(_ p: Packet, _ bytes: Span<UInt8>, _ flow: Flow, toServer: Bool, _ fired: Set<Int>) {
        if flow.wasMidstream && !options.picksUpMidstream || flow.isGivenUp { return }
        if p.flags & Packet.rst != 0 {
            flow[toServer: toServer].isFinished = true
            flow[toServer: !toServer].isFinished = true
            end(flow)
            return
        }
        let isSyn = p.flags & Packet.syn != 0
        var sequence = p.sequence
        if isSyn {
            if flow[toServer: toServer].start == nil || flow[toServer: toServer].bytes == p.payload.count {
                flow[toServer: toServer].start = sequence
                flow[toServer: toServer].next = sequence &+ 1
            }
            sequence = sequence &+ 1
        } else if flow[toServer: toServer].next == nil {
            flow[toServer: toServer].next = sequence
            flow[toServer: toServer].start = sequence &- 1
        }
        if !isSyn, p.flags & Packet.ack != 0, !flow.isEstablished,
            flow.wasMidstream || (toServer && flow[toServer: false].start != nil)
        {
            flow.isEstablished = true
        }
        if p.flags & Packet.ack != 0 { acknowledge(p.acknowledgement, flow, toServer: toServer) }
        if p.payload.count > 0 {
            segment(bytes.extracting(p.payload), sequence, flow, toServer: toServer, fired)
        }
        if p.flags & Packet.fin != 0 {
            let last = sequence &+ UInt32(truncatingIfNeeded: p.payload.count)
            if flow[toServer: toServer].next == last {
                flow[toServer: toServer].isFinished = true
                if flow[toServer: !toServer].isFinished || options.requestsOnly && toServer { end(flow) }
            }
        }
    }

    /// The other side has data that was not seen here: nothing that comes later fills the gap.
    private func acknowledge(_ number: UInt32, _ flow: Flow, toServer: Bool) {
        let other = !toServer
        flow[toServer: toServer].acknowledged = number
        guard let next = flow[toServer: other].next, Self.isBefore(next, number), let first = flow[toServer: other].waiting.first else {
            return
        }
        guard !Self.isBefore(number, first.sequence) else { return }
        gap(flow, to: first.sequence, toServer: other)
    }

    private func gap(_ flow: Flow, to sequence: UInt32, toServer: Bool) {
        inspector.uninspectable(.streamGap, nil, flow, nil)
        flow.http = nil
        flow.message = nil
        flow.application = flow.application == .tls || flow.application == .ssh ? flow.application : nil
        flow.probed = 2
        flow[toServer: toServer].stream = nil
        flow[toServer: toServer].next = sequence
        drain(flow, toServer: toServer, [])
    }

    static func isBefore(_ a: UInt32, _ b: UInt32) -> Bool { Int32(bitPattern: a &- b) < 0 }

    private func segment(_ bytes: Span<UInt8>, _ sequence: UInt32, _ flow: Flow, toServer: Bool, _ fired: Set<Int>) {
        guard let next = flow[toServer: toServer].next else { return }
        if Self.isBefore(next, sequence) {
            guard flow[toServer: toServer].waitingBytes + bytes.count <= options.outOfOrderLimitBytes else {
                let first = flow[toServer: toServer].waiting.first?.sequence ?? sequence
                return gap(flow, to: first, toServer: toServer)
            }
            // The first copy stays: a later one for the same bytes is not what will be delivered.
            let at = flow[toServer: toServer].waiting.firstIndex { !Self.isBefore($0.sequence, sequence) && $0.sequence != sequence }
            let new = Segment(sequence: sequence, bytes: bytes.copied, isLast: false)
            flow[toServer: toServer].waiting.insert(new, at: at ?? flow[toServer: toServer].waiting.count)
            flow[toServer: toServer].waitingBytes += bytes.count
            return
        }
        let old = Int(next &- sequence)
        guard old < bytes.count else { return }
        deliver(bytes.extracting(old..<bytes.count), flow, toServer: toServer, fired, isScanned: old == 0)
        drain(flow, toServer: toServer, fired)
    }

    private func drain(_ flow: Flow, toServer: Bool, _ fired: Set<Int>) {
        while let first = flow[toServer: toServer].waiting.first, let next = flow[toServer: toServer].next,
            !Self.isBefore(next, first.sequence)
        {
            flow[toServer: toServer].waiting.removeFirst()
            flow[toServer: toServer].waitingBytes -= first.bytes.count
            let old = Int(next &- first.sequence)
            if old < first.bytes.count { deliver(first.bytes.span.extracting(old..<first.bytes.count), flow, toServer: toServer, fired) }
        }
    }

    /// Bytes in order, each once. `isScanned`: they are the payload that the rules on packets were just chosen for.
    func deliver(_ bytes: Span<UInt8>, _ flow: Flow, toServer: Bool, _ fired: Set<Int>, isScanned: Bool = false) {
        flow[toServer: toServer].next = (flow[toServer: toServer].next ?? 0) &+ UInt32(truncatingIfNeeded: bytes.count)
        let isKnown = flow.application != nil || flow.probed >= Self.probesMax
        if !isKnown {
            flow[toServer: toServer].beginning += bytes.copied
            detect(flow, flow[toServer: toServer].beginning.span, toServer: toServer)
        }
        StreamRules.look(bytes, flow, toServer: toServer, inspector, fired, isScanned: isScanned)
        if isKnown {
            feed(flow, bytes, toServer: toServer)
        } else if flow.application != nil {
            for direction in [!toServer, toServer] {
                let beginning = flow[toServer: direction].beginning
                flow[toServer: direction].beginning = []
                if !beginning.isEmpty { feed(flow, beginning.span, toServer: direction) }
            }
        } else if flow[toServer: toServer].beginning.count >= Self.beginningBytes {
            flow[toServer: toServer].beginning = []
            flow.probed += 1
        }
    }

    static let pieceBytes = 16 << 10

    /// So much of a direction's beginning is kept to tell its protocol by, so often.
    static let beginningBytes = 1024
    static let probesMax = 8

    private func feed(_ flow: Flow, _ bytes: Span<UInt8>, toServer: Bool) {
        if flow.name.transport == 6, flow.http != nil, counters.packets == 0 {
            StreamRules.look(bytes, flow, toServer: toServer, inspector, [])
        }
        flow.http?.feed(bytes, toServer: toServer)
        if let http = flow.http, http.successor != nil { succeed(http, flow, bytes, toServer: toServer) }
        flow.message?.feed(bytes, toServer: toServer, flow, inspector)
    }

    /// Rules changed while a request was under way: when it is over, what follows it is read under the new ones.
    private func succeed(_ http: HTTPSession, _ flow: Flow, _ bytes: Span<UInt8>, toServer: Bool) {
        inspector.takeOver(http.inspector)
        if let from = http.stoppedAt {
            let next = HTTPSession(inspector, flow, after: http)
            flow.http = next
            if toServer { next.feed(bytes.extracting(min(max(0, from), bytes.count)..<bytes.count), toServer: true) }
        } else {
            http.retire(for: inspector)
        }
    }

    private func detect(_ flow: Flow, _ bytes: Span<UInt8>, toServer: Bool) {
        guard flow.application == nil, flow.probed < Self.probesMax else { return }
        guard let found = ProtocolProbe.detect(bytes, flow, toServer: toServer) else { return }
        flow.application = found
        switch found {
        case .http: flow.http = HTTPSession(inspector, flow)
        case .tls:
            counters.encrypted.tls += 1
            flow.message = MessageReader(found)
        case .ssh:
            counters.encrypted.ssh += 1
            flow.message = MessageReader(found)
        case .quic: counters.encrypted.quic += 1
        case .dns, .ftp, .smtp: flow.message = MessageReader(found)
        case .smb: break
        }
    }

    func forget(_ flow: Flow) {
        end(flow)
        inspector.keptBytes -= flow.countedBytes
        flow.countedBytes = 0
    }

    /// Counts what is kept; over a limit the flow is given up on, which is said.
    func count(_ flow: Flow) {
        if flow.startsEncryption {
            flow.startsEncryption = false
            counters.encrypted.tls += 1
        }
        var kept = flow.keptBytes
        let total = inspector.keptBytes - flow.countedBytes + kept
        if kept > options.flowMemoryLimitBytes || (total > options.memoryLimitBytes && kept > Self.smallBytes) {
            inspector.uninspectable(.memoryLimit, nil, flow, nil)
            flow.letGo()
            flow.isGivenUp = true
            kept = 0
        }
        inspector.keptBytes += kept - flow.countedBytes
        flow.countedBytes = kept
    }

    /// With the memory for all flows used up, a flow that keeps no more than this goes on.
    static let smallBytes = 2 << 10
    public var keptBytes: Int { inspector.keptBytes }

    func end(_ flow: Flow) {
        guard let http = flow.http else { return }
        http.close()
        counters.requests += http.requestCount
        flow.http = nil
    }

    private func sweep(_ time: Instant) {
        guard time.seconds &- lastSweep.seconds >= 60, time > lastSweep else { return }
        lastSweep = time
        for (name, flow) in flows where time.seconds &- flow.lastSeen.seconds > Self.idleSeconds && time > flow.lastSeen {
            forget(flow)
            flows[name] = nil
        }
    }

    // MARK: the verdict

    /// Weighs what matched: pass before drop before reject before alert, then the order of the rules.
    func settle(_ flow: Flow) -> Outcome {
        var outcome = Outcome()
        guard inspector.hasSomethingToTell else { return outcome }
        let matches = inspector.takeMatches().enumerated().sorted {
            let a = ($0.element.rule.rule.action.weight, $0.element.rule.index, $0.offset)
            let b = ($1.element.rule.rule.action.weight, $1.element.rule.index, $1.offset)
            return a < b
        }.map(\.element)
        for hit in matches where !hit.flow.isPassed {
            let rule = hit.rule.rule
            if rule.action == .pass {
                if hit.isFlowWide { hit.flow.isPassed = true }
                break
            }
            let counted = inspector.memory.counted(hit.rule, hit.flow, toServer: hit.toServer, inspector.now)
            if rule.action != .alert || options.alertsBlock && !rule.isSilent {
                guard !options.alertsBlock || counted.acts else { continue }
                if outcome.verdict == .pass {
                    outcome.verdict = rule.action == .reject ? .reject : .drop
                    outcome.decidedBy = rule.id
                }
                if options.enforces, hit.isFlowWide { hit.flow.isCondemned = true }
            }
            guard counted.isTold || options.alertsBlock, !rule.isSilent else { continue }
            counters.alerts += 1
            outcome.findings.append(
                .alert(
                    Alert(
                        rule: rule.id, sid: rule.sid, message: rule.message, cves: rule.cves, action: rule.action,
                        buffer: hit.spot.buffer?.name, offset: hit.spot.offset, view: hit.spot.view, flow: hit.flow.name,
                        request: hit.request, packet: inspector.packetNumber, toServer: hit.toServer)))
        }
        for (item, f) in inspector.takeUnseen() where !f.isPassed {
            counters.uninspectable += 1
            outcome.findings.append(.uninspectable(item))
        }
        return outcome
    }
}
