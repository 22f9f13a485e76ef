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
    /// Lines of code begin behind licence and includes; smaller constants are lengths and flags.
    static let lineMin: Int64 = 20
    static let lineMax: Int64 = 400_000
    static let shiftMax: Int64 = 20_000
    static let suffixes = [".c", ".h", ".cc", ".hh", ".cpp", ".hpp", ".cxx", ".y", ".l", ".inc"]
    /// Instructions around a constant in which the name of its file is looked for.
    static let window = 12
    /// Call sites that a parameter must have before it counts as a line although no file name goes along.
    static let namelessSitesMin = 12

    /// Whom a call goes to, so that calls in two builds can be told to be the same.
    enum Callee: Hashable { case symbol(String), function(Int) }
    /// Where a constant goes: into an argument of a call, or into a field (`error->line = __LINE__`).
    private enum Parameter: Hashable {
        case argument(Callee, register: UInt8)
        case field(displacement: Int, bytes: Int)
    }
    private struct Sites {
        var count = 0, values: Set<Int64> = []
        /// Sites where the name of a source file goes along.
        var withFile = 0
        /// Sites whose constant is a multiple of four: lines are that at every fourth place, sizes and limits mostly.
        var round = 0
    }
    /// One function that differs in what could be line numbers, all moved by the same distance.
    private struct Candidate {
        var function: Int
        var shift: Int64
        var lines: Set<Int64>
        /// Every parameter is known by name to take a line.
        var isCertain: Bool
        /// Some parameter has too few call sites to tell by itself.
        var isRare: Bool
    }

    private let image: CodeImage
    private let files: Set<LinkAddress>
    /// Exported functions: calls to them go through the PLT, and are calls inside the object all the same.
    private let exported: [String: Int]
    private var sites: [Parameter: Sites] = [:]
    /// So many different lines must have moved by one distance before that distance counts as a shift of lines.
    static let linesMin = 3
    /// Rarer call sites are believed only so near to lines that moved beyond doubt.
    static let neighbourhood: Int64 = 1000

    /// Learns from the new build which parameters hold line numbers.
    init(_ image: CodeImage) {
        self.image = image
        files = Self.fileNames(image)
        var exported: [String: Int] = [:]
        for f in image.functions where f.isExported { for name in f.names { exported[name] = f.index } }
        self.exported = exported
        for f in image.functions {
            for (n, i) in f.instructions.enumerated() {
                guard let value = Self.constant(i), let p = parameter(f, at: n) else { continue }
                var s = sites[p] ?? Sites()
                s.count += 1
                s.values.insert(value)
                if value % 4 == 0 { s.round += 1 }
                if namesFile(f, near: n) { s.withFile += 1 }
                sites[p] = s
            }
        }
    }

    /// The constant that a `mov` puts into a register or memory, if it could be a line.
    private static func constant(_ i: Instruction) -> Int64? {
        guard i.mnemonic == Mnemonic.mov, i.ripRelative == nil, let m = i.immediate, m.size == 4, m.value >= lineMin, m.value <= lineMax
        else { return nil }
        return m.value
    }

    /// Where the constant of instruction `n` goes; nil when that cannot be told.
    private func parameter(_ f: CodeFunction, at n: Int) -> Parameter? {
        let i = f.instructions[n]
        if let m = i.memory {
            return i.writesMemory && m.index == nil && !i.usesSegment ? .field(displacement: m.displacement, bytes: i.accessBytes) : nil
        }
        guard let d = i.destination, Register.arguments.contains(d), let callee = callee(f, after: n, d) else { return nil }
        return .argument(callee, register: d.number)
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
                    return exported[name].map { .function($0) } ?? .symbol(key)
                case .function(let g, 0): return .function(g)
                default: return nil
                }
            }
            if i.reads & register.bit != 0 || i.writes & register.bit != 0 || i.flow != .next { return nil }
        }
        return nil
    }

    /// True when the name of a source file is loaded near instruction `n`, on the same way to the same call.
    private func namesFile(_ f: CodeFunction, near n: Int) -> Bool {
        func isName(_ k: Int) -> Bool {
            let i = f.instructions[k]
            guard i.takesAddress, let field = i.ripRelative else { return false }
            return files.contains(f.start + (i.end + field.distance))
        }
        for k in stride(from: n - 1, through: max(0, n - Self.window), by: -1) {
            if f.instructions[k].flow != .next { break }
            if isName(k) { return true }
        }
        for k in n + 1..<max(n + 1, min(f.instructions.count, n + Self.window)) {
            if f.instructions[k].flow != .next { break }
            if isName(k) { return true }
        }
        return false
    }

    /// Where read-only text that something refers to ends like the name of a source file.
    private static func fileNames(_ image: CodeImage) -> Set<LinkAddress> {
        var result: Set<LinkAddress> = [], seen: Set<LinkAddress> = []
        for f in image.functions {
            for r in f.references where r.kind == .address && seen.insert(r.target).inserted {
                guard let section = image.file.section(at: r.target), !section.isWritable, !section.isExecutable,
                    let text = image.file.text(at: r.target, limit: 256), suffixes.contains(where: text.hasSuffix)
                else { continue }
                result.insert(r.target)
            }
        }
        return result
    }

    private enum Trust { case known, learned, rare, no }

    private func trust(_ p: Parameter) -> Trust {
        switch p {
        case .argument(.symbol(let key), let register):
            let name = String(key.prefix { $0 != "@" })
            if let registers = Self.known[name] { return registers.contains(register) ? .known : .no }
            // The C library takes sizes and lengths, and no other lines than those of assert.
            if key.contains("@GLIBC") || LayoutSignals.isAllocator(name) { return .no }
        case .argument(.function(let g), let register):
            if let name = image.functions[g].names.first {
                if let registers = Self.known[name] { return registers.contains(register) ? .known : .no }
                if LayoutSignals.isAllocator(name) { return .no }
            }
        case .field: break
        }
        // Lines differ at nearly every call; sizes, flags and limits recur.
        guard let s = sites[p], s.values.count * 10 >= s.count * 8 else { return .no }
        if s.withFile * 10 >= s.count * 8 { return s.count >= 4 ? .learned : .rare }
        // Without a file name, limits that were all lowered by one would look the same: ask for many, and for odd ones.
        guard case .argument = p, s.count >= Self.namelessSitesMin, s.round * 2 <= s.count else { return .no }
        return .learned
    }

    /// Those of the pairs (index in the old build, in the new one) that differ in line numbers and in nothing else.
    func explain(_ pairs: [(Int, Int)], in old: CodeImage) -> Set<Int> {
        let candidates = pairs.compactMap { candidate(old.functions[$0.0], image.functions[$0.1]) }
        var lines: [Int64: Set<Int64>] = [:]
        for c in candidates where !c.isRare { lines[c.shift, default: []].formUnion(c.lines) }
        return Set(
            candidates.filter { c in
                if c.isCertain { return true }
                guard let known = lines[c.shift], known.count >= Self.linesMin, let low = known.min(), let high = known.max() else {
                    return false
                }
                return !c.isRare || c.lines.allSatisfy { $0 >= low - Self.neighbourhood && $0 <= high + Self.neighbourhood }
            }.map(\.function))
    }

    private func candidate(_ a: CodeFunction, _ b: CodeFunction) -> Candidate? {
        guard a.size == b.size, a.instructions.count == b.instructions.count, a.undecodedAt == nil, b.undecodedAt == nil,
            a.references.count == b.references.count
        else { return nil }
        var result: Candidate?
        var moved: Set<Parameter> = [], stayed: Set<Parameter> = []
        for (n, (i, j)) in zip(a.instructions, b.instructions).enumerated() {
            guard i.offset == j.offset, i.length == j.length else { return nil }
            let range = i.offset..<i.end
            let isSame = a.normalized[range] == b.normalized[range]
            guard let old = Self.constant(i), let new = Self.constant(j), i.destination == j.destination, i.memory == j.memory else {
                if isSame { continue }
                return nil
            }
            let parameter = parameter(b, at: n)
            if isSame {
                if let parameter { stayed.insert(parameter) }
                continue
            }
            guard onlyConstantDiffers(a, b, j), let parameter, abs(new - old) <= Self.shiftMax, result?.shift ?? (new - old) == new - old
            else { return nil }
            let trust = trust(parameter)
            guard trust != .no else { return nil }
            var c = result ?? Candidate(function: b.index, shift: new - old, lines: [], isCertain: true, isRare: false)
            c.lines.insert(old)
            c.isCertain = c.isCertain && trust == .known
            c.isRare = c.isRare || trust == .rare
            result = c
            moved.insert(parameter)
        }
        // Lines inside one unchanged body move together: one that stayed says that the others were no lines.
        return moved.isDisjoint(with: stayed) ? result : nil
    }

    /// Everything in the instruction's bytes but its constant is the same.
    private func onlyConstantDiffers(_ a: CodeFunction, _ b: CodeFunction, _ i: Instruction) -> Bool {
        guard let m = i.immediate else { return false }
        let before = i.offset..<i.offset + m.offset, after = i.offset + m.offset + m.size..<i.end
        return a.normalized[before] == b.normalized[before] && a.normalized[after] == b.normalized[after]
    }
}
