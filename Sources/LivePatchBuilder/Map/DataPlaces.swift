// Data that only changed functions use: no unchanged code can vote for it. It is known by two things that are independent of each
// other: its place between data that is proved, and what the unchanged parts of the changed functions do with it.

import ELF
import MachineCode

struct DataPlaces {
    private let c: Comparison
    private let moved: MovedCode
    /// What lined-up instructions of changed functions say: new address -> old addresses, and the reverse.
    private var alike: [LinkAddress: Set<LinkAddress>] = [:]
    private var alikeBack: [LinkAddress: Set<LinkAddress>] = [:]

    init(_ c: Comparison, _ moved: MovedCode) {
        self.c = c
        self.moved = moved
        lineUp(shape)
        // Compilers choose registers anew around a change: what lines up with nothing so far may line up without them.
        let known = (new: Set(alike.keys), old: Set(alikeBack.keys))
        lineUp(operation, except: known)
    }

    private mutating func lineUp(_ shape: (Instruction) -> UInt64, except known: (new: Set<LinkAddress>, old: Set<LinkAddress>) = ([], []))
    {
        for n in moved.functions {
            guard let o = c.match.oldOf[n] else { continue }
            let a = c.old.functions[o], b = c.new.functions[n]
            let before = Dictionary(a.references.map { ($0.instruction, $0) }, uniquingKeysWith: { x, _ in x })
            let after = Dictionary(b.references.map { ($0.instruction, $0) }, uniquingKeysWith: { x, _ in x })
            for (i, j) in Alignment.pairs(a.instructions.map(shape), b.instructions.map(shape)) {
                guard let x = before[i], let y = after[j], x.kind == y.kind, !x.kind.isBranch, !known.new.contains(y.target),
                    !known.old.contains(x.target)
                else { continue }
                alike[y.target, default: []].insert(x.target)
                alikeBack[x.target, default: []].insert(y.target)
            }
        }
    }

    /// The old address of the writable data at `a`, if both kinds of evidence name the same one: the neighbours on both sides
    /// that unchanged code vouches for lie equally far apart in both builds, with the same things that anybody refers to
    /// between them; and one unchanged function, or every lined-up use in changed ones, says it too.
    func old(_ a: LinkAddress, in section: Section) -> LinkAddress? {
        // A pointer to a function that changes may have changed what it stands for with it.
        if let r = c.new.relocationAt[a], let g = c.new.target(of: r).flatMap(c.new.function), moved.contains(g) { return nil }
        guard !c.map.disputed.contains(a), let there = c.old.file.section(section.name), there.isWritable else { return nil }
        let (below, above) = c.map.strongNeighbours(a)
        let sameSize = there.size == section.size
        // Where a section is as long as before its ends are neighbours too.
        typealias Pair = (new: LinkAddress, old: LinkAddress)
        func inside(_ n: Pair?) -> Pair? { n.flatMap { section.contains($0.new) && there.contains($0.old) ? $0 : nil } }
        let start: Pair? = sameSize ? (section.address, there.address) : nil, end: Pair? = sameSize ? (section.end, there.end) : nil
        let low = inside(below) ?? start, high = inside(above) ?? end
        guard let low, let high, high.new - low.new == high.old - low.old, low.new <= a, a < high.new else { return nil }
        let distance = a - low.new
        let old = low.old + distance
        let after = c.newData.seams.filter { $0 > low.new && $0 < high.new }.map { $0 - low.new }
        let before = c.oldData.seams.filter { $0 > low.old && $0 < high.old }.map { $0 - low.old }
        guard before == after else { return nil }
        if let votes = c.map.votes[a] {
            guard votes.count == 1, votes[old] != nil else { return nil }
            return old
        }
        guard !c.map.mappedOld.contains(old), alike[a] == [old], alikeBack[old] == [a] else { return nil }
        return old
    }
}
