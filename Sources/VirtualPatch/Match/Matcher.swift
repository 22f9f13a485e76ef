// Runs one chain of matches over one buffer, as the Suricata language defines it: cursor, relative matches, next occurrences.

/// The state of one evaluation. Positions count from the start of the buffer, of which `bytes` may be a later part.
struct Matcher {
    /// Matches tried, and bytes searched, for one chain: beyond it the answer is `hitLimit`.
    static let stepLimit = 3_000
    static let byteLimit = 32 << 20
    /// Digits of a number that is written out.
    private static let digitLimit = 20

    /// Where the latest match ended.
    var position = 0
    var variables = InlineArray<16, UInt64>(repeating: 0)
    /// The chain was given up on: neither yes nor no.
    var hitLimit = false
    /// Where the first match of the chain began.
    var firstOffset: Int?
    /// The buffer's length where more is known than `bytes` tell.
    var total: Int?
    /// More bytes will follow: what only they decide is noted.
    var grows = false
    /// Where the first step begins to look.
    var resumesAt = 0
    /// Where the earliest chain began that bytes which are to come may complete.
    private(set) var begunAt: Int?
    private var chainStart = 0
    private var tried = 0
    private var searched = 0
    /// No other occurrence of an earlier match can help.
    private var isFinal = false

    /// Whether the chain from step `i` on holds. `base`: the position of `bytes[0]`.
    mutating func holds(_ steps: [Step], from i: Int, in bytes: Span<UInt8>, base: Int) -> Bool {
        guard i < steps.count else { return true }
        tried += 1
        guard tried <= Self.stepLimit, searched <= Self.byteLimit else {
            hitLimit = true
            isFinal = true
            return false
        }
        let step = steps[i]
        switch step.match {
        case .content(let c): return content(c, steps, i, bytes, base)
        case .pattern(let p):
            guard let regex = step.regex else { return false }
            return pattern(p, regex, steps, i, bytes, base)
        case .byteTest(let t):
            if i == 0 { chainStart = base }
            guard byteTest(t, bytes, base) else { return false }
        case .byteJump(let j):
            if i == 0 { chainStart = base }
            guard byteJump(j, bytes, base) else { return false }
        case .byteExtract(let e):
            if i == 0 { chainStart = base }
            guard byteExtract(e, bytes, base) else { return false }
        case .byteMath(let m):
            if i == 0 { chainStart = base }
            guard byteMath(m, bytes, base) else { return false }
        case .dataAt(let d):
            let end = base + bytes.count
            let n = amount(d.position)
            let isThere = d.isRelative ? position &+ n <= end : n < end
            guard isThere != d.isNegated else {
                if !d.isNegated { begun() }
                if !d.isRelative { isFinal = true }
                return false
            }
        case .size(let s):
            guard s.holds(total ?? (base + bytes.count)) else {
                isFinal = true
                return false
            }
        case .base64(let b):
            guard let decoded = base64(b, bytes, base) else {
                begun()
                return false
            }
            var inner = Matcher()
            inner.variables = variables
            inner.tried = tried
            inner.searched = searched
            let matched = inner.holds(step.nested, from: 0, in: decoded.span, base: 0)
            tried = inner.tried
            searched = inner.searched
            hitLimit = hitLimit || inner.hitLimit
            guard matched else {
                begun()
                return false
            }
        case .injection(let kind):
            guard InjectionDetector.detects(kind, in: bytes) else { return false }
            note(base)
        case .number(let s):
            guard let n = Self.decimal(bytes), s.holds(n) else { return false }
            note(base)
        case .capture:
            guard let regex = step.regex, regex.groups >= 1,
                case .found(let from, let to) = regex.find(in: bytes, from: 0, group: 1)
            else { break }
            position = 0
            return holds(steps, from: i + 1, in: bytes.extracting(from..<to), base: 0)
        case .transform: break
        }
        return holds(steps, from: i + 1, in: bytes, base: base)
    }

    private mutating func begin(_ at: Int) { if grows { begunAt = min(begunAt ?? at, at) } }

    /// The chain ends with the bytes: more of them may help.
    private mutating func begun() { begin(chainStart) }

    private mutating func note(_ at: Int) { if firstOffset == nil { firstOffset = at } }

    private func amount(_ a: Amount) -> Int {
        switch a {
        case .value(let n): n
        case .variable(let i): i < 16 ? Int(truncatingIfNeeded: min(variables[i], UInt64(SuricataOperations.amountLimit) << 12)) : 0
        }
    }

    private mutating func content(_ c: Content, _ steps: [Step], _ i: Int, _ bytes: Span<UInt8>, _ base: Int) -> Bool {
        let end = base + bytes.count
        let n = c.bytes.count
        let start = position
        // Where a match must end at the latest, whether those bytes came or not.
        var lower: Int, limit = Int.max
        if c.isRelative {
            let distance = c.distance.map(amount) ?? 0
            lower = max(0, start &+ distance)
            if let within = c.within { limit = min(limit, start &+ distance &+ amount(within)) }
            if let depth = c.depth { limit = min(limit, start &+ (c.offset.map(amount) ?? 0) &+ amount(depth)) }
            if let offset = c.offset { lower = max(lower, amount(offset)) }
        } else {
            lower = c.offset.map(amount) ?? 0
            if let depth = c.depth { limit = min(limit, lower &+ amount(depth)) }
            if c.startsBuffer { limit = min(limit, n) }
        }
        let upper = min(limit, end)
        func fail(_ isDecided: Bool) -> Bool {
            if isDecided { isFinal = true }
            return false
        }
        let isIndependent = !c.isRelative
        if i == 0 { lower = max(lower, resumesAt) }
        if c.endsBuffer {
            if upper < end { return c.isNegated ? holds(steps, from: i + 1, in: bytes, base: base) : fail(isIndependent) }
            lower = max(lower, end - n)
            if c.startsBuffer, end != n { lower = end }
        }
        while true {
            let from = max(lower, base)
            searched += max(0, upper - from)
            let hit =
                upper > from || (upper == from && n == 0)
                ? LiteralSearch.find(c.bytes, in: bytes, from: from - base, to: upper - base, ignoresCase: c.ignoresCase) : nil
            guard let hit else {
                if c.isNegated { return holds(steps, from: i + 1, in: bytes, base: base) }
                if i > 0, c.endsBuffer || limit > end { begun() }
                // At any distance behind the one before: if it is nowhere now, a later occurrence of that one does not help.
                return fail(isIndependent || (c.within == nil && c.depth == nil && lower == max(0, start &+ (c.distance.map(amount) ?? 0))))
            }
            if c.isNegated { return fail(isIndependent) }
            let found = hit + base
            if i == 0 { chainStart = found }
            let wasFirst = firstOffset == nil
            note(found)
            position = found + n
            if holds(steps, from: i + 1, in: bytes, base: base) { return true }
            if wasFirst { firstOffset = nil }
            guard c.isFollowed, !isFinal else { return false }
            lower = found + 1
        }
    }

    private mutating func pattern(
        _ p: Pattern, _ regex: Regex, _ steps: [Step], _ i: Int, _ bytes: Span<UInt8>, _ base: Int
    ) -> Bool {
        let start = p.isRelative ? max(position, base) : base
        guard start <= base + bytes.count else {
            if !p.isNegated { begun() }
            return p.isNegated ? holds(steps, from: i + 1, in: bytes, base: base) : false
        }
        let subject = bytes.extracting((start - base)..<bytes.count)
        var from = i == 0 ? min(max(0, resumesAt - start), subject.count) : 0
        while true {
            searched += subject.count - from
            let outcome = regex.find(in: subject, from: from, grows: grows && !p.isNegated, isContinued: grows && !p.isRelative && base > 0)
            switch outcome {
            case .limit:
                hitLimit = true
                isFinal = true
                return false
            case .begun(let a):
                if i == 0 { chainStart = start + a }
                begun()
                return false
            case .none:
                if p.isNegated { return holds(steps, from: i + 1, in: bytes, base: base) }
                // Nothing has begun, but where no byte is yet, or any place will do, one may.
                if i > 0, from == subject.count || !p.isHeld { begun() }
                if !p.isRelative { isFinal = true }
                return false
            case .found(let a, let b):
                if p.isNegated {
                    if !p.isRelative { isFinal = true }
                    return false
                }
                if i == 0 { chainStart = start + a }
                let wasFirst = firstOffset == nil
                note(start + a)
                position = start + b
                if holds(steps, from: i + 1, in: bytes, base: base) { return true }
                if wasFirst { firstOffset = nil }
                guard p.isFollowed, !isFinal, a < subject.count else { return false }
                from = a + 1
            }
        }
    }

    // MARK: byte operations

    private mutating func number(
        _ count: Int, at: Int, _ format: NumberFormat, _ bytes: Span<UInt8>, _ base: Int
    ) -> (value: UInt64, used: Int)? {
        let i = at - base
        guard i >= 0, count >= 0, i <= bytes.count, count <= bytes.count - i else {
            if i >= 0 { begun() }
            return nil
        }
        if count == 0 { return (0, 0) }
        guard let digits = format.digits else {
            guard count <= 8 else { return nil }
            var v: UInt64 = 0
            for k in 0..<count {
                let byte = UInt64(bytes[i + k])
                v = format.isLittleEndian ? v | byte << UInt64(8 * k) : v << 8 | byte
            }
            return (v, count)
        }
        var k = i
        let end = i + count
        while k < end, bytes[k] == 32 || (bytes[k] >= 9 && bytes[k] <= 13) { k += 1 }
        if digits == 16, k + 1 < end, bytes[k] == 48, bytes[k + 1] | 32 == 120 { k += 2 }
        var v: UInt64 = 0
        let first = k
        while k < end, let d = SuricataText.hexDigit(bytes[k]), d < digits {
            let (product, a) = v.multipliedReportingOverflow(by: UInt64(digits))
            let (sum, b) = product.addingReportingOverflow(UInt64(d))
            guard !a, !b else { return nil }
            v = sum
            k += 1
        }
        return k > first ? (v, k - i) : nil
    }

    private static func masked(_ v: UInt64, _ mask: UInt64?) -> UInt64 {
        guard let mask, mask != 0 else { return v }
        return (v & mask) >> UInt64(mask.trailingZeroBitCount)
    }

    private mutating func byteTest(_ t: ByteTest, _ bytes: Span<UInt8>, _ base: Int) -> Bool {
        let at = (t.isRelative ? position : 0) &+ amount(t.offset)
        // No count of digits: as many as there are.
        let n = amount(t.count), left = base + bytes.count - at
        let count = n == 0 && t.format.digits != nil ? max(0, min(Self.digitLimit, left)) : n
        guard let (v, _) = number(count, at: at, t.format, bytes, base) else { return false }
        let right: UInt64 = if case .variable(let i) = t.value { i < 16 ? variables[i] : 0 } else { UInt64(max(0, amount(t.value))) }
        return t.comparison.holds(Self.masked(v, t.mask), right) != t.isNegated
    }

    private mutating func byteJump(_ j: ByteJump, _ bytes: Span<UInt8>, _ base: Int) -> Bool {
        let end = base + bytes.count
        let at = (j.isRelative ? position : 0) &+ amount(j.offset)
        guard at >= 0, let (raw, used) = number(amount(j.count), at: at, j.format, bytes, base) else { return false }
        guard var jump = Int(exactly: Self.masked(raw, j.mask)), jump < 1 << 40 else { return false }
        jump *= j.multiplier
        if j.aligns, jump % 4 != 0 { jump += 4 - jump % 4 }
        let from = j.fromBeginning ? 0 : j.fromEnd ? end : at + used
        let to = from &+ jump &+ amount(j.postOffset)
        if to < 0 {
            position = 0
            return true
        }
        guard to <= end else {
            begun()
            return false
        }
        position = to
        return true
    }

    private mutating func byteExtract(_ e: ByteExtract, _ bytes: Span<UInt8>, _ base: Int) -> Bool {
        let at = (e.isRelative ? position : 0) &+ amount(e.offset)
        guard let (raw, used) = number(e.count, at: at, e.format, bytes, base), e.variable < 16 else { return false }
        var v = Self.masked(raw, e.mask) &* UInt64(e.multiplier)
        let align = UInt64(e.alignment)
        if align > 1, v % align != 0 { v = v &+ (align - v % align) }
        variables[e.variable] = v
        position = at + used
        return true
    }

    private mutating func byteMath(_ m: ByteMath, _ bytes: Span<UInt8>, _ base: Int) -> Bool {
        let at = (m.isRelative ? position : 0) &+ m.offset
        guard let (raw, used) = number(amount(m.count), at: at, m.format, bytes, base), m.variable < 16 else { return false }
        let right: UInt64 = if case .variable(let i) = m.operand { i < 16 ? variables[i] : 0 } else { UInt64(max(0, amount(m.operand))) }
        switch m.operation {
        case "+": variables[m.variable] = raw &+ right
        case "-": variables[m.variable] = raw &- right
        case "*": variables[m.variable] = raw &* right
        case "/":
            guard right != 0 else { return false }
            variables[m.variable] = raw / right
        case "<": variables[m.variable] = right < 64 ? raw << right : 0
        default: variables[m.variable] = right < 64 ? raw >> right : 0
        }
        variables[m.variable] = Self.masked(variables[m.variable], m.mask)
        position = at + used
        return true
    }

    private func base64(_ b: Base64Decode, _ bytes: Span<UInt8>, _ base: Int) -> [UInt8]? {
        let at = (b.isRelative ? position : 0) &+ b.offset - base
        guard at >= 0, at < bytes.count else { return nil }
        let end = b.count.map { min(bytes.count, at &+ $0) } ?? bytes.count
        let decoded = Transforms.base64(bytes.extracting(at..<end))
        return decoded.isEmpty ? nil : decoded
    }

    private static func decimal(_ bytes: Span<UInt8>) -> Int? {
        guard bytes.count > 0, bytes.count <= 18 else { return nil }
        var v = 0
        var k = bytes[0] == UInt8(ascii: "-") ? 1 : 0
        let negative = k == 1
        guard k < bytes.count else { return nil }
        while k < bytes.count {
            guard bytes[k] >= 48, bytes[k] <= 57 else { return nil }
            v = v * 10 + Int(bytes[k] - 48)
            k += 1
        }
        return negative ? -v : v
    }
}
