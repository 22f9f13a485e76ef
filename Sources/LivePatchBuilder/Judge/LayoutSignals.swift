// Signs in code that a structure changed its layout: objects that exist when the patch arrives have the old one.
// Stripped code has no types, so these are signals, not proof; a field in an alignment hole leaves none.

import ELF
import LivePatch
import MachineCode

struct LayoutSignals {
    static let remedy = "Live objects keep the old layout: restart. Debug information of both builds could clear a false alarm."

    static func findings(_ c: Comparison, _ moved: MovedCode) -> [Finding] {
        var result: [Finding] = []
        /// Functions whose code differs in nothing but distances inside structures.
        var displacementOnly: [Int] = []
        /// old displacement, new displacement -> functions.
        var shifts: [[Int]: Set<Int>] = [:]
        for n in moved.functions {
            guard let o = c.match.oldOf[n], case .changed = c.relation[n] else { continue }
            let a = c.old.functions[o], b = c.new.functions[n]
            let pairs = Alignment.pairs(a.instructions.map(shape), b.instructions.map(shape))
            let before = displacements(a), after = displacements(b)
            var other = a.instructions.count != b.instructions.count || pairs.count != a.instructions.count
            var shifted = 0
            for (i, j) in pairs {
                let x = a.instructions[i], y = b.instructions[j]
                if x.usesSegment, y.usesSegment, x.memory?.base == nil, x.memory?.displacement != y.memory?.displacement {
                    result.append(
                        Finding(
                            "tls-changed", c.new.name(n), "it uses another place in thread-local storage.", remedy: remedy, verdict: .refuse
                        ))
                }
                if let p = x.memory, let q = y.memory, p.displacement != q.displacement, !isFrame(p), !x.usesSegment {
                    shifted += 1
                    // Reordered code lines up stores of different fields; a field that moved leaves its old distance for a new one.
                    guard before[p.displacement, default: 0] > after[p.displacement, default: 0],
                        after[q.displacement, default: 0] > before[q.displacement, default: 0]
                    else { continue }
                    shifts[[p.displacement, q.displacement], default: []].insert(n)
                } else if x.immediate?.value != y.immediate?.value {
                    other = true
                    result += allocation(c, a, b, i, j, n)
                }
            }
            if shifted > 0, !other { displacementOnly.append(n) }
        }
        if !displacementOnly.isEmpty {
            let names = displacementOnly.prefix(3).map { c.new.name($0) }.joined(separator: ", ")
            result.append(
                Finding(
                    "layout-changed", displacementOnly.count == 1 ? names : "\(displacementOnly.count) functions",
                    "\(displacementOnly.count) function\(displacementOnly.count == 1 ? "" : "s") differ only in distances inside structures (\(names)).",
                    remedy: remedy, verdict: displacementOnly.count >= 3 ? .refuse : .review))
        }
        if let (shift, functions) = shifts.filter({ $0.value.count >= 2 }).max(by: {
            ($0.value.count, $1.key[0]) < ($1.value.count, $0.key[0])
        }) {
            let names = functions.sorted().prefix(3).map { c.new.name($0) }.joined(separator: ", ")
            result.append(
                Finding(
                    "layout-shift", "\(hex(shift[0])) to \(hex(shift[1]))",
                    "the distance \(hex(shift[0])) became \(hex(shift[1])) in \(functions.count) functions (\(names)).", remedy: remedy,
                    verdict: functions.count >= 3 ? .refuse : .review))
        }
        result += newDisplacements(c, moved)
        for conflict in c.conflicts {
            guard let section = c.new.file.section(at: conflict.new), section.isWritable, !c.new.isGOT(conflict.new) else { continue }
            result.append(
                Finding(
                    "conflicting-votes", "\(section.name)+\(hex(conflict.new - section.address))",
                    "unchanged code disagrees about which old data this is (\(conflict.old.map(\.description).joined(separator: ", "))).",
                    remedy: remedy, verdict: .refuse))
        }
        return result
    }

    private static func displacements(_ f: CodeFunction) -> [Int: Int] {
        var result: [Int: Int] = [:]
        for i in f.instructions { if let m = i.memory, !isFrame(m), !i.usesSegment { result[m.displacement, default: 0] += 1 } }
        return result
    }

    /// Stack slots move with every change of a function and say nothing about structures.
    private static func isFrame(_ m: Instruction.Memory) -> Bool {
        m.base == .rsp || (m.base == Register(5) && m.displacement < 0)
    }

    /// A constant that reaches an allocator and changed is a size.
    private static func allocation(_ c: Comparison, _ a: CodeFunction, _ b: CodeFunction, _ i: Int, _ j: Int, _ n: Int) -> [Finding] {
        guard let from = a.instructions[i].immediate?.value, let to = b.instructions[j].immediate?.value,
            let register = b.instructions[j].destination, Register.arguments.contains(register), b.instructions[j].mnemonic == Mnemonic.mov
        else { return [] }
        for k in j + 1..<min(b.instructions.count, j + 40) {
            let next = b.instructions[k]
            if next.flow == .call || (next.flow == .jump && next.branch != nil) {
                guard let target = next.branchTarget.map({ b.start + $0 }) else { return [] }
                var name = ""
                if case .plt(let key) = c.new.place(target) { name = key }
                if case .function(let g, 0) = c.new.place(target) { name = c.new.functions[g].names.first ?? "" }
                guard isAllocator(name) else { return [] }
                return [
                    Finding(
                        "allocation-changed", c.new.name(n), "an allocation of \(from) bytes became one of \(to) bytes.", remedy: remedy,
                        verdict: .review)
                ]
            }
            if next.writes & register.bit != 0 { return [] }
        }
        return []
    }

    static func isAllocator(_ name: String) -> Bool {
        let base = name.prefix { $0 != "@" }.lowercased()
        return base.contains("alloc") || base.contains("memdup") || base.hasPrefix("_znw") || base.hasPrefix("_zna")
            || base.hasPrefix("obstack")
    }

    /// A distance inside a structure that no old function near the moved one ever used may be a field that is new.
    private static func newDisplacements(_ c: Comparison, _ moved: MovedCode) -> [Finding] {
        let neighbours = 40
        var result: [Finding] = []
        for n in moved.functions {
            guard let o = c.match.oldOf[n] else { continue }
            var known: Set<Int> = []
            for k in max(0, o - neighbours)...min(c.old.functions.count - 1, o + neighbours) {
                for i in c.old.functions[k].instructions { if let m = i.memory { known.insert(m.displacement) } }
            }
            var unseen: Set<Int> = []
            for i in c.new.functions[n].instructions {
                guard let m = i.memory, m.base != nil, !isFrame(m), !i.usesSegment, !i.takesAddress, m.displacement > 8, m.index == nil,
                    !known.contains(m.displacement)
                else { continue }
                unseen.insert(m.displacement)
            }
            guard !unseen.isEmpty else { continue }
            result.append(
                Finding(
                    "new-displacement", c.new.name(n),
                    "it reaches \(unseen.sorted().prefix(4).map { hex($0) }.joined(separator: ", ")) inside a structure, where no old code nearby does.",
                    remedy: remedy, verdict: .review))
        }
        return result
    }
}
