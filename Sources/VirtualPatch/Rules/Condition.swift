// What a rule asks of traffic, in one form for all importers: a boolean tree over tests of buffers.

/// A boolean tree. All tests of a rule hold on one view of the traffic, negations included.
public indirect enum Condition: Sendable, Equatable {
    case all([Condition])
    case any([Condition])
    case test(BufferTest)
}

extension Condition {
    /// Two buffers that must hold together and are never there together: such a condition could not hold, and nobody would know.
    var apart: (Buffer, Buffer)? {
        switch self {
        case .test: return nil
        case .any(let parts):
            for part in parts { if let found = part.apart { return found } }
            return nil
        case .all(let parts):
            var buffers: [Buffer] = []
            for part in parts {
                if let found = part.apart { return found }
                if case .test(let t) = part { buffers.append(t.buffer) }
            }
            for (i, a) in buffers.enumerated() {
                for b in buffers[..<i] where !a.isSeen(with: b) { return (b, a) }
            }
            return nil
        }
    }
}

/// One buffer, what is done to its bytes first, and a chain of matches over the outcome.
public struct BufferTest: Sendable, Equatable {
    public var buffer: Buffer
    /// Restricts a buffer with instances to those of this name; nil takes all.
    public var selector: Selector?
    public var transforms: [Transform] = []
    /// In the order of the rule; relative matches look on from where the one before ended.
    public var matches: [Match] = []
}

/// Names the parameters, headers or cookies that count.
public enum Selector: Sendable, Equatable {
    /// Compared without regard to case.
    case name(String)
    case pattern(Pattern)
}

public enum Transform: String, Sendable, Equatable, CaseIterable {
    case lowercase, uppercase, urlDecode, base64Decode, hexDecode, trim, normalizePath
    /// The number of bytes, in decimal.
    case length
    /// The number of instances, in decimal.
    case count
    case dotPrefix, stripWhitespace, compressWhitespace

    /// Whether a literal that the outcome holds is in the bytes before too, but for case and percent encoding.
    var keepsLiterals: Bool {
        switch self {
        case .lowercase, .uppercase, .urlDecode, .trim: true
        default: false
        }
    }
}

/// A number in a rule: written there, or read from the traffic by an earlier byte operation.
public enum Amount: Sendable, Equatable {
    case value(Int)
    /// Index among the rule's variables.
    case variable(Int)
}

public enum Match: Sendable, Equatable {
    case content(Content)
    case pattern(Pattern)
    case byteTest(ByteTest)
    case byteJump(ByteJump)
    case byteExtract(ByteExtract)
    case byteMath(ByteMath)
    case dataAt(DataAt)
    case size(SizeTest)
    case base64(Base64Decode)
    case injection(Injection)
    case number(SizeTest)
    /// A regular expression whose first group replaces the buffer for what follows.
    case capture(Pattern)
    case transform(Transform)
}

public enum Injection: String, Sendable, Equatable { case sql, script }

public struct Content: Sendable, Equatable {
    public var bytes: [UInt8]
    public var isNegated = false
    public var ignoresCase = false
    public var isFastPattern = false
    public var offset: Amount?
    public var depth: Amount?
    public var distance: Amount?
    public var within: Amount?
    public var startsBuffer = false
    public var endsBuffer = false
    /// The next match of this buffer is relative to this one.
    public var isFollowed = false

    public var isRelative: Bool { distance != nil || within != nil }
}

public struct Pattern: Sendable, Equatable {
    public var source: String
    public var ignoresCase = false
    public var dotMatchesNewline = false
    public var isMultiline = false
    public var isExtended = false
    public var isAnchored = false
    public var isUngreedy = false
    public var isDollarEndOnly = false
    public var isRelative = false
    public var isNegated = false
    public var isFollowed = false

    /// Matches where it is tried first, or not at all.
    var isHeld: Bool { source.hasPrefix("^") || isAnchored }
}

public enum Comparison: String, Sendable, Equatable {
    case less = "<", more = ">", equal = "=", lessOrEqual = "<=", moreOrEqual = ">=", notEqual = "!=", and = "&", or = "^"

    func holds(_ a: UInt64, _ b: UInt64) -> Bool {
        switch self {
        case .less: a < b
        case .more: a > b
        case .equal: a == b
        case .lessOrEqual: a <= b
        case .moreOrEqual: a >= b
        case .notEqual: a != b
        case .and: a & b != 0
        case .or: a ^ b != 0
        }
    }
}

/// How bytes become a number.
public struct NumberFormat: Sendable, Equatable {
    public var isLittleEndian = false
    /// nil: binary; else the base of digits.
    public var digits: Int?
}

public struct ByteTest: Sendable, Equatable {
    public var count: Amount
    public var comparison: Comparison
    public var isNegated = false
    public var value: Amount
    public var offset: Amount
    public var isRelative = false
    public var format = NumberFormat()
    public var mask: UInt64?
}

public struct ByteJump: Sendable, Equatable {
    public var count: Amount
    public var offset: Amount
    public var isRelative = false
    public var format = NumberFormat()
    public var multiplier = 1
    public var aligns = false
    public var fromBeginning = false
    public var fromEnd = false
    public var postOffset: Amount = .value(0)
    public var mask: UInt64?
}

public struct ByteExtract: Sendable, Equatable {
    public var count: Int
    public var offset: Amount
    public var variable: Int
    public var isRelative = false
    public var format = NumberFormat()
    public var multiplier = 1
    public var alignment = 1
    public var mask: UInt64?
}

public struct ByteMath: Sendable, Equatable {
    public var count: Amount
    public var offset: Int
    public var operation: Character
    public var operand: Amount
    public var variable: Int
    public var isRelative = false
    public var format = NumberFormat()
    public var mask: UInt64?
}

public struct DataAt: Sendable, Equatable {
    public var position: Amount
    public var isRelative = false
    public var isNegated = false
}

/// A comparison of a length or a number with one or two bounds.
public struct SizeTest: Sendable, Equatable {
    public enum Kind: Sendable, Equatable { case equal, notEqual, less, more, lessOrEqual, moreOrEqual, between }
    public var kind: Kind
    public var low: Int
    public var high = 0

    public func holds(_ n: Int) -> Bool {
        switch kind {
        case .equal: n == low
        case .notEqual: n != low
        case .less: n < low
        case .more: n > low
        case .lessOrEqual: n <= low
        case .moreOrEqual: n >= low
        case .between: n > low && n < high
        }
    }
}

/// Decodes base64 from a place on, and matches over what comes out.
public struct Base64Decode: Sendable, Equatable {
    public var count: Int?
    public var offset = 0
    public var isRelative = false
    public var matches: [Match] = []
}
