// A test of a buffer, ready to run: its expressions are compiled.

import ELF

/// A class: a step is handed on many times a request, and one count is cheaper than its parts'.
final class Step: Sendable {
    let match: Match
    let regex: Regex?
    /// What base64 decodes to is matched apart.
    let nested: [Step]

    /// `grows`: it is tried on streams, which more bytes follow.
    init(_ match: Match, grows: Bool = false) throws(Failure) {
        self.match = match
        switch match {
        case .pattern(let p), .capture(let p): regex = try Regex(p, grows: grows)
        default: regex = nil
        }
        if case .base64(let b) = match { nested = try Step.all(b.matches) } else { nested = [] }
    }

    static func all(_ matches: [Match], grows: Bool = false) throws(Failure) -> [Step] {
        var out: [Step] = []
        for match in matches { out.append(try Step(match, grows: grows)) }
        return out
    }
}

/// Immutable; shared by all flows.
final class CompiledTest: Sendable {
    let buffer: Buffer
    let selector: Selector?
    let selectorRegex: Regex?
    let transforms: [Transform]
    let steps: [Step]
    let streaming: StreamingClass
    /// For tests of streams: independent groups of segments in order.
    let groups: [SegmentGroup]
    /// A literal without which a test of the whole cannot hold.
    let requiredLiteral: Content?
    /// More bytes can turn a yes into a no.
    let needsEnd: Bool

    init(_ test: BufferTest) throws(Failure) {
        buffer = test.buffer
        selector = test.selector
        if case .pattern(let p) = test.selector { selectorRegex = try Regex(p) } else { selectorRegex = nil }
        transforms = test.transforms
        steps = try Step.all(test.matches, grows: test.buffer == .payload)
        streaming = test.buffer.isUnbounded ? StreamingClass.of(test) : .streaming
        if test.buffer == .payload {
            groups = SegmentGroup.ofStream(steps)
        } else {
            groups = test.buffer.isUnbounded && streaming != .whole ? SegmentGroup.split(steps) : []
        }
        let literals = test.matches.compactMap { match -> Content? in
            guard case .content(var c) = match, !c.isNegated else { return nil }
            if test.transforms.contains(where: { $0 == .lowercase || $0 == .uppercase }) { c.ignoresCase = true }
            return c
        }
        let keeps = test.transforms.allSatisfy { $0 == .lowercase || $0 == .uppercase }
        requiredLiteral = keeps && !test.buffer.hasInstances ? literals.max { $0.bytes.count < $1.bytes.count } : nil
        needsEnd = test.matches.contains { match in
            switch match {
            case .content(let c): c.isNegated || c.endsBuffer
            case .pattern(let p): p.isNegated || p.source.hasSuffix("$")
            case .dataAt(let d): d.isNegated
            case .size, .number: true
            case .byteJump(let j): j.fromEnd
            default: false
            }
        }
    }

    func selects(_ name: Span<UInt8>) -> Bool {
        switch selector {
        case nil: return true
        case .name(let wanted):
            let utf8 = wanted.utf8
            guard utf8.count == name.count else { return false }
            var i = 0
            for c in utf8 {
                if LiteralSearch.lower(name[i]) != LiteralSearch.lower(c) { return false }
                i += 1
            }
            return true
        case .pattern:
            guard let regex = selectorRegex else { return false }
            if case .found = regex.find(in: name, from: 0) { return true }
            return false
        }
    }
}

/// Matches that hold together wherever they are; segments follow each other at any distance.
struct SegmentGroup: Sendable {
    struct Segment: Sendable {
        let steps: [Step]
        /// Must be the last bytes of the buffer.
        let endsBuffer: Bool
        /// No match of the segment is longer: bytes before that many need not be searched again.
        let span: Int
        /// The length of the literal that it begins with; 1 where it begins with something else.
        let literalBytes: Int

        init(_ steps: [Step]) {
            self.steps = steps
            if case .content(let c)? = steps.first?.match { literalBytes = max(1, c.bytes.count) } else { literalBytes = 1 }
            var ends = false
            var span = 0
            func size(_ a: Amount?) -> Int { if case .value(let n) = a { abs(n) } else { 0 } }
            for step in steps {
                switch step.match {
                case .content(let c):
                    ends = ends || c.endsBuffer
                    span += max(c.bytes.count, size(c.within)) + size(c.distance)
                case .pattern(let p): span += p.boundedLength ?? 0
                case .dataAt(let d): span += size(d.position)
                case .byteTest(let t): span += size(t.offset) + size(t.count)
                default: break
                }
            }
            endsBuffer = ends
            self.span = span
        }
    }
    var segments: [Segment]
    /// A single negated literal: the group holds when it is nowhere.
    var isNegated: Bool
    /// A condition on the buffer's length alone.
    var size: SizeTest?
    /// Its parts hold together in ways that no cut keeps: all of it is looked for at once.
    var isChain = false

    /// Must be found; else it must not, or is about the length alone.
    var isPositive: Bool { !isNegated && size == nil }

    /// Whether one of the literals comes with whatever its first segment matches, and the segment begins no farther back than is kept.
    func leads(to literals: [[UInt8]]) -> Bool {
        for (i, step) in (segments.first?.steps ?? []).enumerated() {
            switch step.match {
            case .content(let c):
                if !c.isNegated, literals.contains(where: { c.bytes.starts(with: $0) }) { return true }
            case .dataAt, .byteTest: break
            case .pattern(let p):
                // It holds the literal, which brought the rule when it came.
                guard i == 0, !p.isNegated, let needed = p.requiredLiterals else { return false }
                return needed.allSatisfy { need in literals.contains { Self.holds(need, $0) } }
            default: return false
            }
        }
        return false
    }

    private static func holds(_ bytes: [UInt8], _ literal: [UInt8]) -> Bool {
        LiteralSearch.find(literal, in: bytes.span, from: 0, to: bytes.count, ignoresCase: true) != nil
    }

    /// A test of a stream is cut too where that keeps its meaning, though its parts may have no bound.
    static func ofStream(_ steps: [Step]) -> [SegmentGroup] {
        let isCut = steps.allSatisfy { step in
            switch step.match {
            case .byteExtract, .byteMath, .capture, .transform, .injection, .number: false
            default: true
            }
        }
        return isCut ? split(steps, onStream: true) : [SegmentGroup(segments: [Segment(steps)], isNegated: false, isChain: true)]
    }

    /// Cuts a chain where a match does not depend on the one before (a new group), or follows it at any distance (a new segment).
    static func split(_ steps: [Step], onStream: Bool = false) -> [SegmentGroup] {
        var groups: [SegmentGroup] = []
        var chain: [[Step]] = []
        func close() {
            if !chain.isEmpty {
                groups.append(SegmentGroup(segments: chain.map { Segment($0) }, isNegated: false))
            }
            chain = []
        }
        func add(_ step: Step) {
            if chain.isEmpty { chain = [[]] }
            chain[chain.count - 1].append(step)
        }
        for step in steps {
            switch step.match {
            case .size(let s):
                groups.append(SegmentGroup(segments: [], isNegated: false, size: s))
            case .content(let c) where c.isNegated && c.isRelative && onStream: add(step)
            case .pattern(let p) where p.isNegated && p.isRelative && onStream: add(step)
            case .pattern(let p) where p.isNegated && onStream:
                var positive = p
                positive.isNegated = false
                if let step = try? Step(.pattern(positive)) {
                    groups.append(SegmentGroup(segments: [Segment([step])], isNegated: true))
                }
            case .content(let c) where c.isNegated:
                var positive = c
                positive.isNegated = false
                if let step = try? Step(.content(positive)) {
                    groups.append(SegmentGroup(segments: [Segment([step])], isNegated: true))
                }
            case .content(let c) where c.isRelative:
                if chain.isEmpty { chain = [[]] }
                if c.within == nil, c.depth == nil, c.offset == nil, !chain[chain.count - 1].isEmpty {
                    chain.append([step])
                } else {
                    chain[chain.count - 1].append(step)
                }
            case .pattern(let p) where p.isRelative:
                if chain.isEmpty { chain = [[]] }
                // `^` holds it to its place; without it, it may be anywhere behind.
                if p.isHeld || chain[chain.count - 1].isEmpty {
                    chain[chain.count - 1].append(step)
                } else {
                    chain.append([step])
                }
            case .dataAt(let d) where d.isRelative: add(step)
            case .byteTest(let t) where t.isRelative: add(step)
            case .byteJump(let j) where j.isRelative && onStream: add(step)
            case .base64(let b) where b.isRelative && onStream: add(step)
            default:
                close()
                chain = [[step]]
            }
        }
        close()
        return groups
    }
}
