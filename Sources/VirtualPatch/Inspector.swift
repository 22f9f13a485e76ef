// Has the rules look at messages: candidates by prefilter, then each rule's whole condition on one view after the other.

import ELF

/// Where a rule matched.
struct Spot {
    var buffer: Buffer?
    var offset: Int?
    var view = 0
}

/// A rule that matched, before actions are weighed against each other.
struct Hit {
    var rule: CompiledRule
    var spot: Spot
    var flow: Flow
    var request: Int?
    var toServer: Bool
    /// The rule's action is about the whole flow, not about this packet.
    var isFlowWide: Bool
}

/// The judge: one per thread. Rules are shared, all else here is its own.
final class Inspector {
    let rules: CompiledRules
    let options: EngineOptions
    let http: HTTPConfiguration
    private let scratch: PrefilterScratch
    private var stamps: [UInt32]
    private var stamp: UInt32 = 0
    private var candidates: [Int] = []
    var memory = Memory()
    /// The packet that is being looked at, and its time.
    var packetNumber = 0 { didSet { forgetPayload() } }
    var now = Instant(nanoseconds: 0)
    /// What matched on this packet, before actions are weighed against each other.
    private(set) var matched: [Hit] = []
    private(set) var unseen: [(Uninspectable, Flow)] = []
    /// Bytes kept for all flows together: the engine counts after each packet.
    var keptBytes = 0
    private var readers: [HTTPReader] = []
    /// Readers that wait for a connection to be read.
    private static let readerLimit = 32
    /// Rules that the payload of the current packet may concern.
    var foundInPacket: [Int] = []
    /// Where the payload is that was scanned for rules on bodies too, and those rules: nothing of it is scanned again.
    private var scannedPayload: Place?
    /// The packet is gone: its place in memory says nothing any more.
    func forgetPayload() { scannedPayload = nil }
    private var foundForBody: [Int] = []
    var hasSomethingToTell: Bool { !matched.isEmpty || !unseen.isEmpty }

    init(_ rules: CompiledRules, _ options: EngineOptions) throws(Failure) {
        self.rules = rules
        self.options = options
        http = try HTTPConfiguration(profile: options.profile, headerLimitBytes: options.headerLimitBytes)
        scratch = try PrefilterScratch(for: rules.prefilters.values)
        stamps = Array(repeating: 0, count: rules.rules.count)
    }

    // MARK: readers

    func takeReader() -> HTTPReader? {
        while let reader = readers.popLast() { if reader.parser.reuse() { return reader } }
        return HTTPReader(http)
    }

    func putBack(_ reader: HTTPReader) {
        guard readers.count < Self.readerLimit else { return }
        reader.request.clear()
        reader.request.seen.removeAll()
        reader.response.clear()
        reader.response.seen.removeAll()
        readers.append(reader)
    }

    // MARK: what is told

    func uninspectable(_ reason: Uninspectable.Reason, _ rule: CompiledRule?, _ flow: Flow, _ request: Int?) {
        unseen.append((Uninspectable(reason: reason, rule: rule?.rule.id, flow: flow.name, request: request, packet: packetNumber), flow))
    }

    /// What the rules before these found since the last packet.
    func takeOver(_ former: Inspector) {
        guard former !== self else { return }
        matched += former.takeMatches()
        unseen += former.takeUnseen()
        former.now = now
        former.packetNumber = packetNumber
    }

    func takeMatches() -> [Hit] {
        defer { matched.removeAll(keepingCapacity: true) }
        return matched
    }
    func takeUnseen() -> [(Uninspectable, Flow)] {
        defer { unseen.removeAll(keepingCapacity: true) }
        return unseen
    }

    func fire(_ rule: CompiledRule, _ spot: Spot, _ flow: Flow, request: Int?, toServer: Bool, isFlowWide: Bool = true) {
        guard memory.holds(rule, flow, toServer: toServer, now) else { return }
        memory.remember(rule, flow, toServer: toServer, now)
        matched.append(Hit(rule: rule, spot: spot, flow: flow, request: request, toServer: toServer, isFlowWide: isFlowWide))
    }

    // MARK: candidates

    private func newStamp() {
        stamp &+= 1
        if stamp == 0 {
            for i in stamps.indices { stamps[i] = 0 }
            stamp = 1
        }
    }

    private func add(_ rule: Int) {
        if stamps[rule] != stamp {
            stamps[rule] = stamp
            candidates.append(rule)
        }
    }

    private func scan(_ moment: Moment, _ bytes: Span<UInt8>) {
        guard let prefilter = rules.prefilters[moment], let owners = rules.owners[moment] else { return }
        prefilter.scan(bytes, scratch) { literal in for rule in owners[literal] { add(rule) } }
    }

    /// Rules, in order, that the bytes may concern.
    func candidates(_ moment: Moment, _ bytes: Span<UInt8>, withAlways: Bool = true) -> [Int] {
        newStamp()
        candidates.removeAll(keepingCapacity: true)
        if withAlways, let always = rules.always[moment] { for rule in always { add(rule) } }
        scan(moment, bytes)
        candidates.sort()
        return candidates
    }

    /// Rules that a packet's payload may concern. `hasBody`: bodies of requests may come in it.
    func findInPacket(_ payload: Span<UInt8>, hasBody: Bool) {
        newStamp()
        candidates.removeAll(keepingCapacity: true)
        foundForBody.removeAll(keepingCapacity: true)
        scannedPayload = nil
        if let always = rules.always[.packet] { for rule in always { add(rule) } }
        if let prefilter = rules.prefilters[.packet], let owners = rules.owners[.packet] {
            if hasBody, rules.prefilters[.requestBody] != nil, let bodies = rules.owners[.requestBody] {
                scannedPayload = Place(payload)
                prefilter.scan(payload, scratch) { literal in
                    for rule in owners[literal] { add(rule) }
                    foundForBody += bodies[literal]
                }
            } else {
                prefilter.scan(payload, scratch) { literal in for rule in owners[literal] { add(rule) } }
            }
        }
        candidates.sort()
        swap(&candidates, &foundInPacket)
    }

    /// Whether the rule looks at this flow in this direction at all.
    func applies(_ c: CompiledRule, _ flow: Flow, toServer: Bool) -> Bool {
        let rule = c.rule, traffic = rule.traffic
        if let application = traffic.application, application != flow.application { return false }
        switch traffic.transport {
        case .any: break
        case .tcp: if flow.name.transport != 6 { return false }
        case .udp: if flow.name.transport != 17 { return false }
        case .icmp: if flow.name.transport != 1 && flow.name.transport != 58 { return false }
        }
        if rule.flow.toServer && !toServer || rule.flow.toClient && toServer { return false }
        if rule.flow.established && !flow.isEstablished || rule.flow.notEstablished && flow.isEstablished { return false }
        return endsMatch(traffic, flow.name, toServer: toServer)
    }

    private func endsMatch(_ t: Traffic, _ name: FlowName, toServer: Bool) -> Bool {
        let a = toServer ? (name.client, name.clientPort) : (name.server, name.serverPort)
        let b = toServer ? (name.server, name.serverPort) : (name.client, name.clientPort)
        func holds(_ s: (Address, UInt16), _ d: (Address, UInt16)) -> Bool {
            (t.source.isAny || t.source.holds(s.0)) && (t.destination.isAny || t.destination.holds(d.0))
                && (t.sourcePorts.isAny || t.sourcePorts.holds(s.1)) && (t.destinationPorts.isAny || t.destinationPorts.holds(d.1))
        }
        return holds(a, b) || t.isBidirectional && holds(b, a)
    }

    // MARK: messages of HTTP

    /// The head is complete: rules on it are decided, those that need the body wait.
    func head(_ m: HTTPMessage, _ session: HTTPSession) {
        let moment: Moment = m.isRequest ? .requestHead : .responseHead
        var found = candidates(moment, m.buffers.bytes.span)
        if !m.seen.isEmpty { found = (found + m.seen).sorted() }
        var previous = -1
        for index in found where index != previous {
            previous = index
            consider(rules.rules[index], m, session)
        }
        m.seen.removeAll(keepingCapacity: true)
    }

    /// A rule that a literal pointed to, unless it was considered for this message before.
    private func consider(_ rule: CompiledRule, _ m: HTTPMessage, _ session: HTTPSession) {
        guard applies(rule, session.flow, toServer: m.isRequest) else { return }
        guard rule.rule.events.isEmpty else { return }
        let hasBodyViews = m.isRequest && m.mayHaveBody && rule.moments.contains(.requestBody)
        let views = options.isStrict ? 1 : max(m.buffers.viewCount, hasBodyViews ? 3 : 1)
        guard mayHold(rule, m, session, views) else { return }
        var pending = PendingRule(
            rule: rule, progress: Array(repeating: rule.streamTests.map { TestProgress($0) }, count: views))
        decide(&pending, m, session, isEnd: false)
        if !pending.isDone { m.pending.append(pending) }
    }

    /// What the head alone says, before anything is kept for the rule. Rules that look at heads alone are decided here.
    private func mayHold(_ rule: CompiledRule, _ m: HTTPMessage, _ session: HTTPSession, _ views: Int) -> Bool {
        for view in 0..<views {
            let (answer, spot) = evaluate(rule.condition, m, session, view, { _, _ in (.later, nil) }, isEnd: false)
            if answer == .no { continue }
            guard answer == .yes else { return true }
            fire(rule, spot, session.flow, request: m.number, toServer: m.isRequest)
            return false
        }
        return false
    }

    /// An event of the parser, for rules that ask for it.
    func event(_ name: String, _ m: HTTPMessage, _ session: HTTPSession) {
        for rule in rules.rules where rule.rule.events.contains(name) {
            guard applies(rule, session.flow, toServer: m.isRequest) else { continue }
            if rule.streamTests.isEmpty, evaluate(rule.condition, m, session, 0, { _, _ in (.no, nil) }, isEnd: true).answer != .yes {
                continue
            }
            fire(rule, Spot(), session.flow, request: m.number, toServer: m.isRequest)
        }
    }

    private func decide(_ p: inout PendingRule, _ m: HTTPMessage, _ session: HTTPSession, isEnd: Bool) {
        var isLater = false, isUndecided = false
        for view in p.progress.indices {
            let (answer, spot) = evaluate(
                p.rule.condition, m, session, view,
                { slot, test in
                    self.advance(&p, view, slot, test, m, session, isEnd: isEnd)
                }, isEnd: isEnd)
            switch answer {
            case .yes:
                p.isDone = true
                return fire(p.rule, spot, session.flow, request: m.number, toServer: m.isRequest)
            case .no: break
            case .later: isLater = true
            case .cannot: isUndecided = true
            }
        }
        guard isEnd || !isLater else { return }
        p.isDone = true
        if isUndecided {
            let isStreamGone = p.rule.moments.contains(.packet) && session.flow[toServer: m.isRequest].stream?.store.isComplete == false
            uninspectable(bodyIsTooLong(m) ? .bodyTooLong : isStreamGone ? .streamTooLong : .matchLimit, p.rule, session.flow, m.number)
        }
    }

    private func bodyIsTooLong(_ m: HTTPMessage) -> Bool { !m.bodies[0].isComplete || m.arguments?.contains { $0.isOverLimit } == true }

    private func advance(
        _ p: inout PendingRule, _ view: Int, _ slot: Int, _ test: CompiledTest, _ m: HTTPMessage, _ session: HTTPSession, isEnd: Bool
    ) -> (Answer, Int?) {
        if test.buffer == .payload {
            guard let stream = session.flow[toServer: m.isRequest].stream else { return (isEnd ? .no : .later, nil) }
            var matcher = Matcher()
            let seen = stream.store.bytes
            if matcher.holds(test.steps, from: 0, in: seen.span, base: stream.store.base) { return (.yes, matcher.firstOffset) }
            return (!isEnd ? .later : stream.store.isComplete ? .no : .cannot, nil)
        }
        // A part of the other direction, in a rule that takes either.
        guard test.buffer.moment == (m.isRequest ? .requestBody : .responseBody) else { return (.no, nil) }
        if test.buffer.hasInstances { return bodyInstances(test, m, view, isEnd: isEnd) }
        let body = min(view, m.bodies.count - 1)
        // A later view without a body of its own, and nothing else that differs, was judged before.
        let answer = test.advance(&p.progress[view][slot], m.bodies[body], isEnd: isEnd)
        return (answer, p.progress[view][slot].offset)
    }

    private func bodyInstances(_ test: CompiledTest, _ m: HTTPMessage, _ view: Int, isEnd: Bool) -> (Answer, Int?) {
        guard isEnd else { return (.later, nil) }
        guard m.bodies[0].isComplete else { return (m.bodyHasArguments ? .cannot : .no, nil) }
        let arguments = m.bodyArguments(view: view)
        var count = 0
        var hitLimit = false
        for item in arguments.items {
            let bytes: [UInt8]
            switch test.buffer {
            case .zoneBodyArgumentNames: bytes = item.name
            case .zoneFileNames:
                guard let name = item.fileName else { continue }
                bytes = name
            default:
                guard item.fileName == nil else { continue }
                bytes = item.value
            }
            guard test.selects(item.name.span) else { continue }
            count += 1
            if test.transforms.contains(.count) { continue }
            let (holds, offset, limit) = run(test, bytes)
            if holds { return (.yes, offset) }
            hitLimit = hitLimit || limit
        }
        if test.transforms.contains(.count) { return (run(test, Array(String(count).utf8)).holds ? .yes : .no, nil) }
        return (hitLimit || arguments.isOverLimit ? .cannot : .no, nil)
    }

    private func run(_ test: CompiledTest, _ bytes: [UInt8]) -> (holds: Bool, offset: Int?, hitLimit: Bool) {
        run(test, bytes.span)
    }

    private func run(_ test: CompiledTest, _ bytes: Span<UInt8>) -> (holds: Bool, offset: Int?, hitLimit: Bool) {
        var matcher = Matcher()
        let holds: Bool
        if test.transforms.allSatisfy({ Transforms.changesNothing($0, bytes) }) {
            holds = matcher.holds(test.steps, from: 0, in: bytes, base: 0)
        } else {
            var content = bytes.copied
            for transform in test.transforms { content = Transforms.apply(transform, content) }
            holds = matcher.holds(test.steps, from: 0, in: content.span, base: 0)
        }
        return (holds, matcher.firstOffset, matcher.hitLimit)
    }

    /// The condition on one view. `stream` answers for tests of streams.
    private func evaluate(
        _ c: CompiledCondition, _ m: HTTPMessage, _ session: HTTPSession, _ view: Int,
        _ stream: (Int, CompiledTest) -> (Answer, Int?), isEnd: Bool
    ) -> (answer: Answer, spot: Spot) {
        var spot = Spot(view: view)
        switch c {
        case .all(let parts):
            var result = Answer.yes
            // What is there is cheap; what is to come is asked last.
            for part in parts {
                if case .test(_, let slot) = part, slot >= 0 { continue }
                let (answer, s) = evaluate(part, m, session, view, stream, isEnd: isEnd)
                if answer == .no { return (.no, s) }
                if spot.buffer == nil { spot = s }
                if answer != .yes { result = result == .later ? .later : answer }
            }
            for part in parts {
                guard case .test(_, let slot) = part, slot >= 0 else { continue }
                let (answer, s) = evaluate(part, m, session, view, stream, isEnd: isEnd)
                if answer == .no { return (.no, s) }
                if spot.buffer == nil { spot = s }
                if answer != .yes { result = result == .later ? .later : answer }
            }
            return (result, spot)
        case .any(let parts):
            var result = Answer.no
            for part in parts {
                let (answer, s) = evaluate(part, m, session, view, stream, isEnd: isEnd)
                if answer == .yes { return (.yes, s) }
                if answer == .later || (answer == .cannot && result == .no) { result = answer }
            }
            return (result, spot)
        case .test(let test, let slot):
            spot.buffer = test.buffer
            if slot >= 0 {
                let (answer, offset) = stream(slot, test)
                spot.offset = offset
                return (answer, spot)
            }
            let (answer, offset) = head(test, m, view)
            spot.offset = offset
            return (answer, spot)
        }
    }

    private func head(_ test: CompiledTest, _ m: HTTPMessage, _ view: Int) -> (Answer, Int?) {
        if !test.buffer.hasInstances {
            guard let range = m.buffers[test.buffer, view] else { return (.no, nil) }
            let bytes = m.buffers.bytes
            let (holds, offset, hitLimit) = run(test, bytes.span.extracting(range))
            return (holds ? .yes : hitLimit ? .cannot : .no, offset)
        }
        let bytes = m.buffers.bytes, instances = m.buffers.instances
        let own = view == 2 && instances.contains { $0.view == 2 && $0.buffer == test.buffer } ? 2 : 0
        var count = 0
        var hitLimit = false
        for instance in instances where instance.buffer == test.buffer && instance.view == own {
            guard test.selects(bytes.span.extracting(instance.name)) else { continue }
            count += 1
            if test.transforms.contains(.count) { continue }
            let (holds, offset, limit) = run(test, bytes.span.extracting(instance.value))
            if holds { return (.yes, offset) }
            hitLimit = hitLimit || limit
        }
        if test.transforms.contains(.count) { return (run(test, Array(String(count).utf8)).holds ? .yes : .no, nil) }
        return (hitLimit ? .cannot : .no, nil)
    }

    // MARK: messages of other protocols

    /// Named buffers of one message; rules on the protocol alone match its first message.
    func message(_ buffers: [(Buffer, [UInt8])], _ flow: Flow, toServer: Bool) {
        var bytes: [UInt8] = []
        for (_, content) in buffers { bytes += content }
        for index in candidates(.message, bytes.span) {
            let rule = rules.rules[index]
            guard applies(rule, flow, toServer: toServer), rule.moments.contains(.message) else { continue }
            if let spot = spot(rule.condition, buffers) { fire(rule, spot, flow, request: nil, toServer: toServer) }
        }
    }

    private func spot(_ c: CompiledCondition, _ buffers: [(Buffer, [UInt8])]) -> Spot? {
        switch c {
        case .all(let parts):
            var first: Spot?
            for part in parts {
                guard let s = spot(part, buffers) else { return nil }
                first = first ?? s
            }
            return first ?? Spot()
        case .any(let parts):
            for part in parts { if let s = spot(part, buffers) { return s } }
            return nil
        case .test(let test, _):
            for (buffer, content) in buffers where buffer == test.buffer {
                let (holds, offset, _) = run(test, content)
                if holds { return Spot(buffer: buffer, offset: offset) }
            }
            return nil
        }
    }

    // MARK: bodies

    func body(_ bytes: Span<UInt8>, of m: HTTPMessage, _ session: HTTPSession) {
        let moment: Moment = m.isRequest ? .requestBody : .responseBody
        guard rules.prefilters[moment] != nil || !m.pending.isEmpty else { return }
        let limit = keptBytes > options.memoryLimitBytes ? 0 : options.wholeBodyBytes
        if m.isRequest, !options.isStrict, m.bodies.count == 1, m.isForm {
            m.bodies += [StreamStore(), StreamStore()]
            m.decoders = [StreamDecoder(), StreamDecoder()]
        }
        if m.opening == nil {
            for i in bytes.indices where !Transforms.isSpace(bytes[i]) {
                m.opening = bytes[i]
                break
            }
        }
        m.bodies[0].append(bytes, wholeLimit: limit)
        if m.bodies.count == 3 {
            let once = m.decoders[0].decode(bytes)
            m.bodies[1].append(once.span, wholeLimit: limit)
            m.bodies[2].append(m.decoders[1].decode(once.span).span, wholeLimit: limit)
        }
        look(m, session, moment, at: Place(bytes))
        guard m.pending.contains(where: { !$0.rule.waitsForEnd }) else { return }
        for i in m.pending.indices where !m.pending[i].isDone && !m.pending[i].rule.waitsForEnd {
            decide(&m.pending[i], m, session, isEnd: false)
        }
        m.pending.removeAll { $0.isDone }
    }

    /// Scans what is new in each view; rules found are considered if they were not yet.
    private func look(_ m: HTTPMessage, _ session: HTTPSession, _ moment: Moment, at place: Place) {
        guard let prefilter = rules.prefilters[moment] else { return }
        newStamp()
        candidates.removeAll(keepingCapacity: true)
        for v in m.bodies.indices {
            let base = m.bodies[v].base, scanned = m.bodies[v].scanned
            let from = max(base, scanned - prefilter.longest + 1)
            var end = m.bodies[v].total
            if v == 0, moment == .requestBody, scannedPayload?.holds(place) == true {
                // Only what begins in earlier bytes is new.
                for rule in foundForBody { add(rule) }
                end = from == scanned ? from : min(end, scanned + prefilter.longest - 1)
            }
            if from < end {
                let bytes = m.bodies[v].bytes
                scan(moment, bytes.span.extracting((from - base)..<(end - base)))
            }
            m.bodies[v].scanned = m.bodies[v].total
        }
        considerFound(m, session)
    }

    private func considerFound(_ m: HTTPMessage, _ session: HTTPSession) {
        guard !candidates.isEmpty else { return }
        for index in candidates.sorted() where !m.considered.contains(index) {
            m.considered.insert(index)
            consider(rules.rules[index], m, session)
        }
    }

    func bodyEnds(_ m: HTTPMessage, _ session: HTTPSession) {
        let moment: Moment = m.isRequest ? .requestBody : .responseBody
        if m.bodies.count == 3 {
            m.bodies[1].append(m.decoders[0].finish().span, wholeLimit: options.wholeBodyBytes)
            m.bodies[2].append(m.decoders[1].finish().span, wholeLimit: options.wholeBodyBytes)
        }
        if m.isRequest { lookIntoArguments(m, session, moment) }
        for i in m.pending.indices where !m.pending[i].isDone { decide(&m.pending[i], m, session, isEnd: true) }
        m.pending.removeAll(keepingCapacity: true)
        for i in m.bodies.indices { m.bodies[i].clear() }
    }

    /// JSON and names of files hide literals behind escapes: then the members are scanned themselves.
    private func lookIntoArguments(_ m: HTTPMessage, _ session: HTTPSession, _ moment: Moment) {
        guard rules.prefilters[moment] != nil, rules.used.contains(.zoneBodyArguments) || rules.used.contains(.zoneFileNames),
            m.bodies[0].isComplete
        else { return }
        guard m.bodies[0].total > 0, !m.isForm || options.isStrict,
            m.bodies[0].bytes.contains(where: { $0 == UInt8(ascii: "\\") || $0 == UInt8(ascii: "%") })
        else { return }
        newStamp()
        candidates.removeAll(keepingCapacity: true)
        for view in [0, 2] {
            for item in m.bodyArguments(view: view).items {
                scan(moment, item.name.span)
                scan(moment, item.value.span)
                if let name = item.fileName { scan(moment, name.span) }
            }
        }
        considerFound(m, session)
    }
}
