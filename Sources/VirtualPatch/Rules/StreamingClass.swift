// How much of a long body or stream a rule needs to see at once: decided when the rule is loaded.

/// A rule's class. Later cases need more of the traffic.
public enum StreamingClass: UInt8, Sendable, Equatable, Comparable {
    /// Literals in order at bounded distances: exact at any length, in a window.
    case streaming
    /// Negation, size or `endswith`: decided when the buffer ends; its last bytes wait for that.
    case endOfBuffer
    /// An expression without bound, or parsed parameters: needs the buffer, up to a limit.
    case whole

    /// Bytes kept of a stream that is longer than the engine keeps whole.
    static let windowBytes = 64 << 10

    public static func < (a: StreamingClass, b: StreamingClass) -> Bool { a.rawValue < b.rawValue }

    public var name: String {
        switch self {
        case .streaming: "streaming"
        case .endOfBuffer: "end-of-buffer"
        case .whole: "whole"
        }
    }

    static func classify(_ rule: Rule) -> StreamingClass { of(rule.condition) }

    private static func of(_ condition: Condition) -> StreamingClass {
        switch condition {
        case .all(let parts), .any(let parts): parts.map(of).max() ?? .streaming
        case .test(let test): test.buffer == .mailContent ? .whole : test.buffer.isUnbounded ? of(test) : .streaming
        }
    }

    /// The class of one test of a buffer that may be long.
    static func of(_ test: BufferTest) -> StreamingClass {
        if test.buffer.hasInstances || !test.transforms.isEmpty { return .whole }
        var result = StreamingClass.streaming
        var hasLiteral = false
        for match in test.matches {
            result = max(result, of(match, hasLiteral, onStream: test.buffer == .payload))
            if case .content = match { hasLiteral = true }
        }
        return result
    }

    /// `isBehind`: a literal stands before, whose place the match can be relative to.
    private static func of(_ match: Match, _ isBehind: Bool, onStream: Bool) -> StreamingClass {
        switch match {
        case .content(let c):
            if c.isNegated { return c.isRelative || c.isFollowed ? .whole : .endOfBuffer }
            for amount in [c.offset, c.depth, c.distance, c.within] {
                if case .variable = amount { return .whole }
                if case .value(let n) = amount, abs(n) > windowBytes / 4 { return .whole }
            }
            return c.endsBuffer ? .endOfBuffer : .streaming
        case .size: return .endOfBuffer
        case .dataAt(let d):
            guard case .value(let n) = d.position, n <= windowBytes / 4, !d.isNegated else { return .whole }
            return d.isRelative && !isBehind ? .whole : .streaming
        case .pattern(let p):
            // On a stream an expression goes on from where it was; a body is looked at from its literal on.
            guard !p.isNegated, onStream || p.isRelative && isBehind else { return .whole }
            return p.boundedLength != nil ? .streaming : .whole
        case .byteTest(let t): return t.isRelative && isBehind ? .streaming : .whole
        case .byteExtract, .byteMath, .byteJump, .base64, .injection, .number, .capture, .transform: return .whole
        }
    }
}
