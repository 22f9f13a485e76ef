// Tells a `__LINE__` that moved from a constant that changed. Where that is not certain the constant counts as changed:
// moving a function too many is harmless, leaving a fix out is not.

import ELF
import MachineCode

struct LineNumbers: Sendable {
    /// Functions of common libraries that take a line number, and in which argument register.
    static let known: [String: Set<UInt8>] = [
        "__assert_fail": [2], "__assert": [2], "CRYPTO_malloc": [2], "CRYPTO_zalloc": [2], "CRYPTO_free": [2], "CRYPTO_strdup": [2],
        "CRYPTO_strndup": [1], "CRYPTO_memdup": [1], "CRYPTO_realloc": [1], "CRYPTO_clear_free": [1], "CRYPTO_clear_realloc": [8],
        "CRYPTO_secure_malloc": [2], "CRYPTO_secure_zalloc": [2], "CRYPTO_secure_free": [2], "CRYPTO_secure_clear_free": [1],
        "ERR_set_debug": [6], "OPENSSL_die": [2],
    ]
    static let lineMax: Int64 = 400_000
    static let shiftMax: Int64 = 20_000

    /// Whom a call goes to, so that calls in two builds can be told to be the same.
    enum Callee: Hashable { case symbol(String), function(Int) }
    private struct Parameter: Hashable {
        var callee: Callee
        var register: UInt8
    }
    private struct Sites { var count = 0, values: Set<Int64> = [] }
    /// A distance by which the lines of several functions moved, and between which old lines that was seen.
    private struct Shift { var functions = 0, lines: ClosedRange<Int64> }

    private let image: CodeImage
    /// Exported functions: calls to them go through the PLT, and are calls inside the object all the same.
    private let exported: [String: Int]
    private var sites: [Parameter: Sites] = [:]
    private var shifts: [Int64: Shift] = [:]
    /// A shift that so many functions show beyond doubt also explains rarer call sites in their neighbourhood.
    static let shiftFunctions = 3
    static let neighbourhood: Int64 = 1000

    /// Learns from the new build which parameters hold line numbers.
    init(_ image: CodeImage) {
        self.image = image
        var exported: [String: Int] = [:]
        for f in image.functions where f.isExported { for name in f.names { exported[name] = f.index } }
        self.exported = exported
        for f in image.functions {
            for (n, i) in f.instructions.enumerated() {
                guard let register = Self.constantArgument(i), let value = i.immediate?.value, let callee = callee(f, after: n, register)
                else { continue }
                let p = Parameter(callee: callee, register: register.number)
                sites[p, default: Sites()].count += 1
                sites[p]?.values.insert(value)
            }
        }
    }

    private static func constantArgument(_ i: Instruction) -> Register? {
        guard i.mnemonic == Mnemonic.mov, i.memory == nil, i.ripRelative == nil, let m = i.immediate, m.size == 4, m.value > 0,
            m.value <= lineMax, let d = i.destination, Register.arguments.contains(d)
        else { return nil }
        return d
    }

    /// The call that receives the constant set at instruction `n`; nil when the register may be used otherwise first.
    private func callee(_ f: CodeFunction, after n: Int, _ register: Register) -> Callee? {
        for k in n + 1..<min(f.instructions.count, n + 40) {
            let i = f.instructions[k]
            if i.flow == .call || (i.flow == .jump && i.branch != nil && !f.contains(f.start + (i.branchTarget ?? 0))) {
                guard let target = i.branchTarget.map({ f.start + $0 }) else { return nil }
                switch image.place(target) {
                case .plt(let key):
                    let name = String(key.prefix { $0 != "@" })
                    return exported[name].map { .function($0) } ?? .symbol(name)
                case .function(let g, 0): return .function(g)
                default: return nil
                }
            }
            if i.reads & register.bit != 0 || i.writes & register.bit != 0 { return nil }
            if i.flow == .jump || i.flow == .return || i.flow == .stop { return nil }
        }
        return nil
    }

    private func holdsLines(_ p: Parameter, _ old: Int64, _ new: Int64) -> Bool {
        if case .symbol(let name) = p.callee {
            if let registers = Self.known[name] { return registers.contains(p.register) }
            // An import whose parameters are unknown could be an allocator or a limit.
            return false
        }
        if case .function(let g) = p.callee, let name = image.functions[g].names.first {
            if let registers = Self.known[name] { return registers.contains(p.register) }
            if name.lowercased().contains("alloc") { return false }
        }
        // Lines differ at nearly every call; sizes, flags and limits recur.
        guard let s = sites[p], s.values.count * 10 >= s.count * 8 else { return false }
        if s.count >= 4 { return true }
        guard let known = shifts[new - old], known.functions >= Self.shiftFunctions else { return false }
        return old >= known.lines.lowerBound - Self.neighbourhood && old <= known.lines.upperBound + Self.neighbourhood
    }

    /// True when the two functions differ in line numbers and in nothing else, all moved by the same number of lines.
    /// What it accepts teaches it which shifts are real, so asking twice can explain more.
    mutating func explainDifference(_ a: CodeFunction, _ b: CodeFunction) -> Bool {
        guard a.size == b.size, a.instructions.count == b.instructions.count, a.undecodedAt == nil, b.undecodedAt == nil,
            a.references.count == b.references.count
        else { return false }
        var shift: Int64?
        var lines: [Int64] = []
        var moved: Set<Parameter> = [], stayed: Set<Parameter> = []
        for (n, (i, j)) in zip(a.instructions, b.instructions).enumerated() {
            guard i.offset == j.offset, i.length == j.length else { return false }
            let range = i.offset..<i.end
            let same = a.normalized[range] == b.normalized[range]
            guard let register = Self.constantArgument(j), Self.constantArgument(i) == register else {
                if same { continue }
                return false
            }
            guard let old = i.immediate?.value, let new = j.immediate?.value else { return false }
            let parameter = callee(b, after: n, register).map { Parameter(callee: $0, register: register.number) }
            if same {
                if let parameter { stayed.insert(parameter) }
                continue
            }
            guard let parameter, holdsLines(parameter, old, new), abs(new - old) <= Self.shiftMax, shift ?? (new - old) == new - old else {
                return false
            }
            shift = new - old
            lines.append(old)
            moved.insert(parameter)
        }
        // Lines inside one unchanged body move together: one that stayed says that the others were no lines.
        guard let shift, moved.isDisjoint(with: stayed), let first = lines.min(), let last = lines.max() else { return false }
        var known = shifts[shift] ?? Shift(lines: first...last)
        known.functions += 1
        known.lines = min(first, known.lines.lowerBound)...max(last, known.lines.upperBound)
        shifts[shift] = known
        return true
    }
}
