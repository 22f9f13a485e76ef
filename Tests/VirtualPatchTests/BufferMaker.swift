// Bytes of one buffer on which a chain of matches holds, made from the matches themselves.

import VirtualPatch

struct BufferMaker {
    private(set) var bytes: [UInt8] = []
    private var cursor = 0
    private var leastCount = 0
    private var exactCount: Int?
    private var endings: [[UInt8]] = []
    private var values: [Int] = Array(repeating: 1, count: 16)
    /// What pads.
    var filler: UInt8 = UInt8(ascii: "z")
    /// Which alternative of expressions is taken.
    var choice = 0
    /// Expressions come first, literals are looked for in what they gave.
    var startsWithExpressions = false

    /// Adds what one test of the buffer wants; false where no bytes can be told.
    mutating func add(_ test: BufferTest) -> Bool {
        cursor = 0
        if startsWithExpressions {
            for match in test.matches {
                if case .pattern(let p) = match, !p.isNegated, !p.isRelative {
                    bytes += ExpressionSample.of(p.source, ignoresCase: p.ignoresCase, choice: choice)
                }
            }
        }
        for match in test.matches { guard add(match) else { return false } }
        return true
    }

    /// Bytes that are there already.
    mutating func put(_ new: [UInt8]) { bytes += new }

    /// The bytes, with what must stand at the end and as many as are wanted.
    mutating func finish() -> [UInt8] {
        let tail = endings.max { $0.count < $1.count } ?? []
        let wanted = max(leastCount, exactCount ?? 0)
        if bytes.count + tail.count < wanted { bytes += Array(repeating: filler, count: wanted - bytes.count - tail.count) }
        if !ends(with: tail) { bytes += tail }
        return bytes
    }

    private func ends(with tail: [UInt8]) -> Bool { tail.isEmpty || bytes.suffix(tail.count).elementsEqual(tail) }

    private func amount(_ a: Amount?) -> Int? {
        switch a {
        case nil: nil
        case .value(let n): n
        case .variable(let i): i < 16 ? values[i] : 0
        }
    }

    private mutating func pad(to count: Int) { if bytes.count < count { bytes += Array(repeating: filler, count: count - bytes.count) } }

    /// Bytes at a place: over padding, at the end, or put between.
    private mutating func place(_ new: [UInt8], at: Int) {
        pad(to: at)
        let end = min(bytes.count, at + new.count)
        if bytes[at..<end].allSatisfy({ $0 == filler }) || bytes[at..<end].elementsEqual(new.prefix(end - at)) {
            bytes.replaceSubrange(at..<end, with: new)
        } else {
            bytes.insert(contentsOf: new, at: at)
        }
        cursor = at + new.count
    }

    private func found(_ c: Content, from: Int, to: Int) -> Int? {
        guard c.bytes.count > 0, to - from >= c.bytes.count else { return nil }
        for at in from...(to - c.bytes.count) {
            let isHere = zip(bytes[at...], c.bytes).allSatisfy { a, b in
                a == b || (c.ignoresCase && a | 32 == b | 32 && (a | 32) >= 97 && (a | 32) <= 122)
            }
            if isHere { return at }
        }
        return nil
    }

    private mutating func add(_ match: Match) -> Bool {
        switch match {
        case .content(let c): return add(c)
        case .pattern(let p):
            guard !p.isNegated else { return true }
            if startsWithExpressions, !p.isRelative { return true }
            let sample = ExpressionSample.of(p.source, ignoresCase: p.ignoresCase, choice: choice)
            if p.isRelative {
                place(sample, at: cursor)
            } else if p.source.hasPrefix("^") && bytes.isEmpty {
                place(sample, at: 0)
            } else {
                place(sample, at: bytes.count)
            }
        case .dataAt(let d):
            let n = amount(d.position) ?? 0
            if d.isNegated { return true }
            leastCount = max(leastCount, d.isRelative ? cursor + n : n + 1)
        case .size(let s):
            if s.kind == .equal { exactCount = s.low } else { leastCount = max(leastCount, Self.holding(s)) }
        case .number(let s): bytes += Array(String(Self.holding(s)).utf8)
        case .byteTest(let t):
            let right = amount(t.value) ?? 0
            var value: Int
            switch t.comparison {
            case .less, .notEqual: value = max(0, right - 1)
            case .more: value = right + 1
            default: value = right
            }
            if t.isNegated { value = t.comparison == .equal ? right + 1 : 0 }
            let count = amount(t.count) ?? 1
            let at = (t.isRelative ? cursor : 0) + (amount(t.offset) ?? 0)
            let keep = cursor
            guard at >= 0 else { return false }
            if let digits = t.format.digits {
                let text = String(value, radix: digits)
                guard text.utf8.count <= count else { return false }
                place(Array((String(repeating: "0", count: count - text.utf8.count) + text).utf8), at: at)
            } else {
                place(Self.number(value, count, t.format.isLittleEndian), at: at)
            }
            cursor = keep
        case .byteExtract(let e):
            let at = (e.isRelative ? cursor : 0) + (amount(e.offset) ?? 0)
            guard at >= 0, e.variable < 16 else { return false }
            place(
                e.format.digits == nil
                    ? Self.number(1, e.count, e.format.isLittleEndian) : Array(String(repeating: "0", count: e.count - 1).utf8) + [49],
                at: at)
            values[e.variable] = e.multiplier
        case .byteJump(let j):
            let count = amount(j.count) ?? 1
            let at = (j.isRelative ? cursor : 0) + (amount(j.offset) ?? 0)
            guard at >= 0 else { return false }
            place(j.format.digits == nil ? Self.number(0, count, false) : Array(repeating: 48, count: count), at: at)
            cursor += amount(j.postOffset) ?? 0
            if cursor < 0 { cursor = 0 }
            pad(to: cursor)
        case .base64(let b):
            var inner = BufferMaker()
            for match in b.matches { guard inner.add(match) else { return false } }
            place(Self.base64(inner.finish()), at: (b.isRelative ? cursor : 0) + b.offset)
        case .injection(let kind):
            bytes += Array((kind == .sql ? "1' UNION SELECT password FROM users-- -" : "<script>alert(1)</script>").utf8)
        case .byteMath, .capture, .transform: return false
        }
        return true
    }

    private mutating func add(_ c: Content) -> Bool {
        guard !c.isNegated else { return true }
        let n = c.bytes.count
        if c.endsBuffer, !c.isRelative {
            if c.startsBuffer { bytes = c.bytes } else { endings.append(c.bytes) }
            return true
        }
        if c.isRelative {
            let first = max(0, cursor + (amount(c.distance) ?? 0))
            let last = amount(c.within).map { cursor + (amount(c.distance) ?? 0) + $0 }
            if let at = found(c, from: min(first, bytes.count), to: min(last ?? bytes.count, bytes.count)) {
                cursor = at + n
            } else if last.map({ bytes.count + n <= $0 }) ?? true, bytes.count >= first {
                place(c.bytes, at: bytes.count)
            } else {
                place(c.bytes, at: first)
            }
            return true
        }
        let first = c.startsBuffer ? 0 : amount(c.offset) ?? 0
        let last = c.startsBuffer ? n : amount(c.depth).map { first + $0 }
        if let at = found(c, from: min(first, bytes.count), to: min(last ?? bytes.count, bytes.count)) {
            cursor = at + n
        } else if bytes.count >= first, last.map({ bytes.count + n <= $0 }) ?? true {
            place(c.bytes, at: bytes.count)
        } else {
            place(c.bytes, at: first)
        }
        return true
    }

    static func holding(_ s: SizeTest) -> Int {
        switch s.kind {
        case .equal, .lessOrEqual, .moreOrEqual: s.low
        case .notEqual, .more, .between: s.low + 1
        case .less: max(0, s.low - 1)
        }
    }

    private static func number(_ value: Int, _ count: Int, _ isLittle: Bool) -> [UInt8] {
        let big = (0..<count).reversed().map { UInt8(truncatingIfNeeded: $0 < 8 ? value >> (8 * $0) : 0) }
        return isLittle ? big.reversed() : big
    }

    static func base64(_ bytes: [UInt8]) -> [UInt8] {
        let letters = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".utf8)
        var out: [UInt8] = []
        for at in stride(from: 0, to: bytes.count, by: 3) {
            let part = Array(bytes[at..<min(at + 3, bytes.count)])
            let word = (Int(part[0]) << 16) | (part.count > 1 ? Int(part[1]) << 8 : 0) | (part.count > 2 ? Int(part[2]) : 0)
            for k in 0..<4 { out.append(k <= part.count ? letters[word >> (18 - 6 * k) & 63] : UInt8(ascii: "=")) }
        }
        return out
    }
}
