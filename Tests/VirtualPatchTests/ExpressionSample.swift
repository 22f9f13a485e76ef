// Text that an expression matches, made from its source: first alternatives, least repetitions, one member of each class.

/// Not every expression can be sampled: lookarounds are passed over, back references give nothing. The engine has the last word.
struct ExpressionSample {
    private let source: [UInt8]
    private var i = 0
    private let isCaseless: Bool
    private let choice: Int

    /// `choice`: which alternative of each group is taken, counted around.
    static func of(_ source: String, ignoresCase: Bool, choice: Int = 0) -> [UInt8] {
        var sample = ExpressionSample(source: Array(source.utf8), isCaseless: ignoresCase, choice: choice)
        return sample.alternatives()
    }

    private init(source: [UInt8], isCaseless: Bool, choice: Int) {
        self.source = source
        self.isCaseless = isCaseless
        self.choice = choice
    }

    private var next: UInt8? { i < source.count ? source[i] : nil }

    private mutating func alternatives() -> [UInt8] {
        var all: [[UInt8]] = [[]]
        while let c = next, c != UInt8(ascii: ")") {
            if c == UInt8(ascii: "|") {
                i += 1
                all.append([])
                continue
            }
            let atom = self.atom()
            all[all.count - 1] += repeated(atom)
        }
        return all[choice % all.count]
    }

    private mutating func repeated(_ atom: [UInt8]) -> [UInt8] {
        var least = 1
        switch next {
        case UInt8(ascii: "*"), UInt8(ascii: "?"):
            i += 1
            least = 0
        case UInt8(ascii: "+"): i += 1
        case UInt8(ascii: "{"):
            var digits = i + 1
            var n = 0
            while digits < source.count, source[digits] >= 48, source[digits] <= 57 {
                n = min(n * 10 + Int(source[digits] - 48), 8_192)
                digits += 1
            }
            guard digits > i + 1 || (digits < source.count && source[digits] == UInt8(ascii: ",")) else { return atom }
            while digits < source.count, source[digits] != UInt8(ascii: "}") { digits += 1 }
            i = digits + 1
            least = n
        default: break
        }
        if next == UInt8(ascii: "?") || next == UInt8(ascii: "+") { i += 1 }
        return Array(repeatElement(atom, count: least).joined())
    }

    private mutating func atom() -> [UInt8] {
        guard let c = next else { return [] }
        i += 1
        switch c {
        case UInt8(ascii: "^"), UInt8(ascii: "$"): return []
        case UInt8(ascii: "."): return [UInt8(ascii: "a")]
        case UInt8(ascii: "["): return set()
        case UInt8(ascii: "("): return group()
        case UInt8(ascii: "\\"): return escape().map { [$0] } ?? []
        default: return [c]
        }
    }

    private mutating func group() -> [UInt8] {
        var counts = true
        if next == UInt8(ascii: "?") {
            i += 1
            let kind = next ?? 0
            i += 1
            if kind == UInt8(ascii: "=") || kind == UInt8(ascii: "!") { counts = false }
            if kind == UInt8(ascii: "<"), next == UInt8(ascii: "=") || next == UInt8(ascii: "!") { counts = false }
            if kind == UInt8(ascii: "P") || (kind == UInt8(ascii: "<") && counts) {
                while let c = next, c != UInt8(ascii: ">") { i += 1 }
            }
            if kind == UInt8(ascii: "P") || kind == UInt8(ascii: "<") { i += 1 }
        }
        let inside = alternatives()
        i += 1
        return counts ? inside : []
    }

    /// The byte that an escape stands for; nil for places such as `\b`.
    private mutating func escape() -> UInt8? {
        guard let c = next else { return nil }
        i += 1
        switch c {
        case UInt8(ascii: "x"):
            guard let byte = UInt8(String(decoding: source[i..<min(i + 2, source.count)], as: UTF8.self), radix: 16) else {
                return nil
            }
            i += 2
            return byte
        case UInt8(ascii: "d"): return UInt8(ascii: "1")
        case UInt8(ascii: "w"), UInt8(ascii: "D"), UInt8(ascii: "S"), UInt8(ascii: "H"), UInt8(ascii: "N"): return UInt8(ascii: "a")
        case UInt8(ascii: "W"): return UInt8(ascii: "-")
        case UInt8(ascii: "s"), UInt8(ascii: "h"): return UInt8(ascii: " ")
        case UInt8(ascii: "n"), UInt8(ascii: "R"): return 10
        case UInt8(ascii: "r"): return 13
        case UInt8(ascii: "t"): return 9
        case UInt8(ascii: "b"), UInt8(ascii: "B"), UInt8(ascii: "A"), UInt8(ascii: "Z"), UInt8(ascii: "z"): return nil
        default: return c
        }
    }

    private mutating func set() -> [UInt8] {
        var members = Set<UInt8>()
        var isNegated = false
        if next == UInt8(ascii: "^") {
            isNegated = true
            i += 1
        }
        var isFirst = true
        while let c = next, isFirst || c != UInt8(ascii: "]") {
            isFirst = false
            i += 1
            if c == UInt8(ascii: "\\") {
                let kind = next
                guard let byte = escape() else { continue }
                switch kind {
                case UInt8(ascii: "d"): members.formUnion(48...57)
                case UInt8(ascii: "w"): members.formUnion(Array(48...57) + Array(65...90) + Array(97...122) + [95])
                case UInt8(ascii: "s"): members.formUnion([9, 10, 11, 12, 13, 32])
                case UInt8(ascii: "S"), UInt8(ascii: "D"), UInt8(ascii: "W"): members.formUnion(97...122)
                default: range(from: byte, &members)
                }
                continue
            }
            if c == UInt8(ascii: "["), next == UInt8(ascii: ":") {
                while let c = next, c != UInt8(ascii: "]") { i += 1 }
                i += 1
                members.formUnion(97...122)
                continue
            }
            range(from: c, &members)
        }
        i += 1
        let candidates: [UInt8] = Array(97...122) + Array(48...57) + Array(65...90) + Array(33...126) + Array(0...255)
        return candidates.first { members.contains($0) != isNegated }.map { [$0] } ?? []
    }

    private mutating func range(from low: UInt8, _ members: inout Set<UInt8>) {
        members.insert(low)
        guard next == UInt8(ascii: "-"), i + 1 < source.count, source[i + 1] != UInt8(ascii: "]") else { return }
        i += 1
        var high = source[i]
        i += 1
        if high == UInt8(ascii: "\\") { high = escape() ?? low }
        if low <= high { members.formUnion(low...high) }
    }
}
