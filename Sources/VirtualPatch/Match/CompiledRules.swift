// All rules, ready to run: conditions compiled, and per moment of a flow one prefilter that says which rules to look at.

import ELF

/// A condition whose tests are compiled.
indirect enum CompiledCondition: Sendable {
    case all([CompiledCondition])
    case any([CompiledCondition])
    /// `slot`: index of the state that a test of a stream keeps, -1 for tests of heads.
    case test(CompiledTest, slot: Int)
}

final class CompiledRule: Sendable {
    let rule: Rule
    let index: Int
    let condition: CompiledCondition
    /// Tests of streams; each keeps its state in a slot.
    let streamTests: [CompiledTest]
    /// The moments at which its tests' buffers are filled.
    let moments: Set<Moment>
    let flowBits: [(operation: FlowBit.Operation, bits: [Int])]
    let hostBits: [(bit: HostBit, number: Int)]
    /// Where it is looked at without a literal having been seen.
    let isUnfiltered: Bool
    /// Looks at packets alone, or at packets besides the stream.
    let inspectsPackets: Bool
    let inspectsStream: Bool
    let onlyStream: Bool
    /// Asks for a protocol and nothing else: holds for every packet of a flow that speaks it.
    let isProtocolOnly: Bool
    /// Asks for addresses and nothing else: decided once for each direction of a flow.
    let isAddressOnly: Bool
    /// Asks for parsed parameters of a body: nothing is decided before they are all there.
    let waitsForEnd: Bool
    /// What of it may be in bytes of a stream before its literal.
    let before: CompiledTest.Before
    /// Looks into nothing: its action is about the flow even where a packet set it off.
    let isAboutFlow: Bool

    /// `literals`: those of which one must be there; nil: none is known.
    init(_ rule: Rule, index: Int, bits: inout [String: Int], literals: [[UInt8]]?) throws(Failure) {
        self.rule = rule
        self.index = index
        isUnfiltered = literals == nil
        var tests: [CompiledTest] = []
        var moments: Set<Moment> = []
        condition = try Self.compile(rule.condition, &tests, &moments)
        streamTests = tests
        let payload = tests.filter { $0.buffer == .payload }
        before = payload.count > 1 ? .first : payload.first?.before(literals ?? []) ?? .nothing
        if moments.isEmpty { moments = [.packet] }
        self.moments = moments
        func number(_ name: String) -> Int {
            if let n = bits[name] { return n }
            bits[name] = bits.count
            return bits.count - 1
        }
        flowBits = rule.flowBits.map { ($0.operation, $0.names.map { number("flow " + $0) }) }
        hostBits = rule.hostBits.map { ($0, number("host " + $0.name)) }
        let headers: Set<Buffer> = [.ipHeader, .tcpHeader, .udpHeader, .icmpHeader]
        let buffers = Self.buffers(rule.condition)
        let needsPacket =
            rule.traffic.packetsOnly || rule.flow.noStream || rule.packet.payloadSize != nil || rule.packet.flags != nil
            || !buffers.isDisjoint(with: headers)
        let isTCP = rule.traffic.transport == .tcp || rule.traffic.transport == .any
        let positions = Self.usesPositions(rule.condition)
        let onlyStream = rule.traffic.streamOnly || rule.flow.onlyStream
        isProtocolOnly = buffers.isEmpty && rule.traffic.application != nil && rule.packet.isEmpty && rule.events.isEmpty
        isAddressOnly =
            buffers.isEmpty && rule.traffic.application == nil && rule.packet.isEmpty && rule.flow == FlowConditions()
            && rule.traffic.sourcePorts.isAny && rule.traffic.destinationPorts.isAny && !rule.traffic.packetsOnly
            && !rule.traffic.streamOnly
        waitsForEnd = Self.waits(rule.condition)
        isAboutFlow = buffers.isEmpty && rule.packet.isEmpty && !rule.traffic.packetsOnly
        self.onlyStream = onlyStream
        inspectsPackets =
            !onlyStream && !isProtocolOnly
            && (needsPacket || !isTCP || rule.traffic.transport == .any || positions || !buffers.contains(.payload))
        inspectsStream = !needsPacket && isTCP && buffers.contains(.payload)
    }

    private static func buffers(_ c: Condition) -> Set<Buffer> {
        switch c {
        case .all(let parts), .any(let parts): parts.reduce(into: []) { $0.formUnion(buffers($1)) }
        case .test(let t): [t.buffer]
        }
    }

    private static func waits(_ c: Condition) -> Bool {
        switch c {
        case .all(let parts): parts.contains(where: waits)
        case .any(let parts): !parts.isEmpty && parts.allSatisfy(waits)
        case .test(let t): t.buffer.isUnbounded && t.buffer.hasInstances
        }
    }

    private static func compile(
        _ c: Condition, _ tests: inout [CompiledTest], _ moments: inout Set<Moment>
    ) throws(Failure) -> CompiledCondition {
        switch c {
        case .all(let parts):
            var out: [CompiledCondition] = []
            for part in parts { out.append(try compile(part, &tests, &moments)) }
            return .all(out)
        case .any(let parts):
            var out: [CompiledCondition] = []
            for part in parts { out.append(try compile(part, &tests, &moments)) }
            return .any(out)
        case .test(let t):
            let test = try CompiledTest(t)
            moments.insert(t.buffer.moment)
            guard t.buffer.isUnbounded else { return .test(test, slot: -1) }
            tests.append(test)
            return .test(test, slot: tests.count - 1)
        }
    }

    private static func usesPositions(_ c: Condition) -> Bool {
        switch c {
        case .all(let parts), .any(let parts): parts.contains(where: usesPositions)
        case .test(let t):
            t.buffer == .payload
                && t.matches.contains {
                    if case .content(let c) = $0 { c.offset != nil || c.depth != nil || c.startsBuffer || c.endsBuffer } else { false }
                }
        }
    }
}

/// Immutable and shared. Compiled once per set of rules.
public final class CompiledRules: Sendable {
    let rules: [CompiledRule]
    /// One per moment that rules look at.
    let prefilters: ByMoment<Prefilter>
    /// For each literal of a prefilter, the rules that it stands for.
    let owners: ByMoment<[[Int]]>
    /// Rules without a literal, by the moment they are looked at.
    let always: ByMoment<[Int]>
    /// Rules that ask for a protocol and nothing else.
    let protocolOnly: [Int]
    let used: BufferSet
    let usesResponses: Bool
    let hasStreamRules: Bool
    private let bitNumbers: [String: Int]
    public var count: Int { rules.count }

    public init(_ set: [Rule]) throws(Failure) {
        var bits: [String: Int] = [:]
        var compiled: [CompiledRule] = []
        var literals: [Moment: [LiteralKey: Int]] = [:]
        var lists: [Moment: [Prefilter.Literal]] = [:]
        var owners = ByMoment<[[Int]]>()
        var always = ByMoment<[Int]>()
        var used = BufferSet()
        for (index, rule) in set.enumerated() {
            let keys = LiteralKeys.of(rule)
            let c = try CompiledRule(rule, index: index, bits: &bits, literals: keys?.map(\.literal.bytes))
            compiled.append(c)
            Self.collect(rule.condition, &used)
            guard let keys else {
                // A rule that waits for a body is looked at when the head is there, and again as the body comes.
                always[Self.firstMoment(c), default: []].append(index)
                continue
            }
            for key in keys {
                let table = Self.table(key.moment)
                let at = literals[table]?[key.literal] ?? lists[table]?.count ?? 0
                if at == lists[table]?.count ?? 0 {
                    literals[table, default: [:]][key.literal] = at
                    lists[table, default: []].append(Prefilter.Literal(bytes: key.literal.bytes, ignoresCase: key.literal.ignoresCase))
                    for moment in Moment.allCases where Self.table(moment) == table { owners[moment, default: []].append([]) }
                }
                if owners[key.moment, default: []][at].last != index { owners[key.moment, default: []][at].append(index) }
            }
        }
        var prefilters = ByMoment<Prefilter>()
        for (table, list) in lists {
            let prefilter = try Prefilter(list)
            for moment in Moment.allCases where Self.table(moment) == table && owners[moment]?.contains(where: { !$0.isEmpty }) == true {
                prefilters[moment] = prefilter
            }
        }
        rules = compiled
        bitNumbers = bits
        protocolOnly = compiled.filter(\.isProtocolOnly).map(\.index)
        self.prefilters = prefilters
        self.owners = owners
        self.always = always
        self.used = used
        hasStreamRules = compiled.contains(where: \.inspectsStream)
        usesResponses = used.contains(where: { $0.moment == .responseHead || $0.moment == .responseBody })
    }

    /// What other rules call by one number, these call by another.
    func numbers(ofBitsFrom others: CompiledRules) -> [Int: Int] {
        var out: [Int: Int] = [:]
        for (name, number) in others.bitNumbers { out[number] = bitNumbers[name] }
        return out
    }

    /// Bodies of requests come in packets, mostly as they are: one scan is for both.
    private static func table(_ moment: Moment) -> Moment { moment == .requestBody ? .packet : moment }

    private static func firstMoment(_ c: CompiledRule) -> Moment {
        // Payload tests of rules on an application are latched by the stream; the application's own moments decide when.
        let m = c.moments.filter { $0 != .packet }.min() ?? .packet
        switch m {
        case .requestBody: return .requestHead
        case .responseBody: return .responseHead
        default: return m
        }
    }

    private static func collect(_ c: Condition, _ used: inout BufferSet) {
        switch c {
        case .all(let parts), .any(let parts): for part in parts { collect(part, &used) }
        case .test(let t): used.insert(t.buffer)
        }
    }
}

struct LiteralKey: Hashable {
    var bytes: [UInt8]
    var ignoresCase: Bool
}

/// Chooses the literals of which one must be there for a rule to hold.
enum LiteralKeys {
    struct Key {
        var moment: Moment
        var literal: LiteralKey
    }

    /// Longer ones are no rarer, and cost the prefilter.
    private static let lengthLimit = 32
    private static let shortest = 2

    static func of(_ rule: Rule) -> [Key]? { best(rule.condition)?.keys }

    private static func best(_ c: Condition) -> (keys: [Key], score: Int)? {
        switch c {
        case .all(let parts):
            return parts.compactMap(best).max { $0.score < $1.score }
        case .any(let parts):
            var keys: [Key] = []
            var score = Int.max
            for part in parts {
                guard let (k, s) = best(part) else { return nil }
                keys += k
                score = min(score, s)
            }
            return parts.isEmpty ? nil : (keys, score)
        case .test(let t): return best(t)
        }
    }

    private static func best(_ t: BufferTest) -> (keys: [Key], score: Int)? {
        // Methods, versions and status codes are in every message.
        switch t.buffer {
        case .httpMethod, .zoneMethod, .httpProtocol, .zoneProtocol, .responseProtocol, .httpStatusCode, .httpHeaderNames,
            .responseHeaderNames, .ipHeader, .tcpHeader, .udpHeader, .icmpHeader:
            return nil
        default: break
        }
        guard t.transforms.allSatisfy(\.keepsLiterals) else { return nil }
        let changesCase = t.transforms.contains { $0 == .lowercase || $0 == .uppercase }
        var literals: [(c: Content, group: Int)] = []
        var group = 0
        for match in t.matches {
            if case .capture = match { break }
            guard case .content(let c) = match, !c.isNegated else { continue }
            if !c.isRelative || (c.within == nil && c.depth == nil) { group += 1 }
            literals.append((c, group))
        }
        func value(_ c: Content) -> Int { min(c.bytes.count, lengthLimit) + (c.isFastPattern ? 24 : 0) }
        guard let top = literals.max(by: { value($0.c) < value($1.c) }), top.c.bytes.count >= shortest else {
            if let named = name(t) { return named }
            if let expressed = expressed(t, changesCase) { return expressed }
            // A literal of one byte is better than none where the buffer is short.
            guard let one = literals.first, !t.buffer.isUnbounded else { return nil }
            return ([key(one.c, t.buffer, changesCase)], 1)
        }
        let isLong = t.buffer.isUnbounded
        if isLong && t.buffer != .payload && StreamingClass.of(t) != .whole {
            // What is found in a stream one part after the other must be looked for from its first part on.
            var keys: [Key] = []
            for g in Set(literals.map(\.group)).sorted() {
                if let c = literals.filter({ $0.group == g }).max(by: { value($0.c) < value($1.c) })?.c {
                    keys.append(key(c, t.buffer, changesCase))
                }
            }
            return (keys, value(top.c))
        }
        var keys = [key(top.c, t.buffer, changesCase)]
        if t.buffer == .payload { keys += firsts(t).filter { $0 != top.c }.map { key($0, t.buffer, changesCase) } }
        return (keys, value(top.c) + (isLong ? 0 : 12))
    }

    /// Shorter ones are in too much of what is sent.
    private static let shortestFirst = 4

    /// The best literal of each part of a stream that may come long before the others: the rule waits for them from there on.
    private static func firsts(_ t: BufferTest) -> [Content] {
        var out: [Content] = [], part: [Content] = []
        var isFirst = false
        func close() {
            if let best = part.max(by: { $0.bytes.count < $1.bytes.count }), best.bytes.count >= shortestFirst { out.append(best) }
            part = []
        }
        for match in t.matches {
            switch match {
            case .content(let c) where c.isNegated: break
            case .content(let c) where !c.isRelative:
                close()
                part = [c]
                isFirst = true
            case .content(let c):
                if c.within == nil, c.depth == nil, c.offset == nil { isFirst = false }
                if isFirst { part.append(c) }
            case .dataAt, .byteTest: break
            default: isFirst = false
            }
        }
        close()
        return out
    }

    /// The name of the only parameter, header or cookie that counts: without it there is nothing to look at.
    private static func name(_ t: BufferTest) -> (keys: [Key], score: Int)? {
        guard case .name(let text)? = t.selector, t.buffer.hasInstances, !t.transforms.contains(.count) else { return nil }
        let bytes = Array(text.utf8)
        // Members of JSON are named by paths that stand nowhere.
        guard bytes.count >= 3, !(t.buffer.isUnbounded && text.hasPrefix("json")) else { return nil }
        let literal = LiteralKey(bytes: Array(bytes.prefix(lengthLimit)), ignoresCase: true)
        return ([Key(moment: t.buffer.moment, literal: literal)], min(bytes.count, lengthLimit))
    }

    /// Literals that an expression cannot match without, one of each alternative.
    private static func expressed(_ t: BufferTest, _ changesCase: Bool) -> (keys: [Key], score: Int)? {
        for match in t.matches {
            if case .capture = match { return nil }
            guard case .pattern(let p) = match, !p.isNegated, let literals = p.requiredLiterals else { continue }
            let keys = literals.map {
                Key(
                    moment: t.buffer.moment,
                    literal: LiteralKey(bytes: Array($0.prefix(lengthLimit)), ignoresCase: p.ignoresCase || changesCase))
            }
            return (keys, (literals.map(\.count).min() ?? 0) + (t.buffer.isUnbounded ? 0 : 6))
        }
        return nil
    }

    private static func key(_ c: Content, _ buffer: Buffer, _ changesCase: Bool) -> Key {
        let moment: Moment = buffer.moment
        return Key(
            moment: moment, literal: LiteralKey(bytes: Array(c.bytes.prefix(lengthLimit)), ignoresCase: c.ignoresCase || changesCase))
    }
}
