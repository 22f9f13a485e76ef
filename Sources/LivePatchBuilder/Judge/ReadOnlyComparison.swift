// Read-only data that changed in place. Functions that refer to it move and bring the new data along; this looks for readers
// that nobody can see: other objects, and code that reaches it from the beginning of something that stands before it.

import ELF
import LivePatch

struct ReadOnlyComparison {
    /// Code may reach an array from an address so far before it (`table[c - 'A']`), or from its own beginning.
    static let reach = 4096

    static func findings(_ c: Comparison, _ moved: MovedCode) -> [Finding] {
        if c.isItself { return [] }
        return exportedObjects(c) + exceptionTables(c, moved) + changedCells(c, moved)
    }

    private static func finding(_ place: String, _ sentence: String) -> Finding {
        Finding(
            "read-only-data-changed", place, sentence, remedy: "A build with symbols would tell where objects end; or restart.",
            verdict: .refuse)
    }

    /// Other objects read exported constants directly.
    private static func exportedObjects(_ c: Comparison) -> [Finding] {
        var result: [Finding] = []
        for s in c.old.file.dynamicSymbols where s.isDefined && s.kind == .object && s.section != Symbol.absolute {
            guard let t = c.new.file.dynamicSymbols.first(where: { $0.isDefined && $0.key == s.key && $0.kind == .object }),
                let section = c.new.file.section(at: t.value), !section.isWritable
            else { continue }
            if s.size != t.size || c.old.file.read(s.value, s.size) != c.new.file.read(t.value, t.size) {
                result.append(finding(s.name, "the exported constant \(s.name) differs, and other objects read it where it is."))
            }
        }
        return result
    }

    /// Which exceptions are caught where is data, not code.
    private static func exceptionTables(_ c: Comparison, _ moved: MovedCode) -> [Finding] {
        let name = ".gcc_except_table"
        let a = c.old.file.section(name).map { c.old.file.contents($0) } ?? [],
            b = c.new.file.section(name).map { c.new.file.contents($0) } ?? []
        guard a != b else { return [] }
        return [
            Finding(
                "exception-data", name, "the tables of what is caught where differ.", remedy: "Install the fixed package and restart.",
                verdict: .refuse)
        ]
    }

    // MARK: Cells: from one address that anything refers to up to the next

    private static func changedCells(_ c: Comparison, _ moved: MovedCode) -> [Finding] {
        let open = openEnds(c, moved)
        var result: [Finding] = []
        for x in c.newData.seams {
            guard let section = c.new.file.section(at: x), isConstants(section),
                c.newData.tables[x] == nil, let there = counterpart(c, x, section), c.oldData.tables[there] == nil
            else { continue }
            let size = min(c.newData.next(after: x, in: c.new) - x, c.oldData.next(after: there, in: c.old) - there)
            guard size > 0, let a = c.old.file.read(there, size), let b = c.new.file.read(x, size), a != b else { continue }
            let changed = literal(b)
            // Nearest first: whoever takes the address of something before it may walk into it.
            let before = open.filter { $0 < x && x - $0 <= reach && (section.contains($0) || c.new.file.section(at: $0) == nil) }
            guard let y = before.last(where: { reaches(c, $0, x, changed) }) else { continue }
            result.append(
                finding(
                    "\(section.name)+\(hex(x - section.address))",
                    "it changed in place, and unchanged code takes an address \(x - y) bytes before it, from where it may be read."
                ))
        }
        return result
    }

    /// The program's own constants, and none of the linker's tables.
    private static func isConstants(_ s: Section) -> Bool {
        guard !s.isWritable, !s.isExecutable, s.hasBytes, s.isAllocated, s.type == Section.progbits else { return false }
        return !s.name.hasPrefix(".eh_frame") && s.name != ".gcc_except_table" && s.name != ".interp" && !s.name.hasPrefix(".gnu")
    }

    /// Addresses of read-only data that kept code or pointers in data hold, sorted: what may be read from them on has no end.
    private static func openEnds(_ c: Comparison, _ moved: MovedCode) -> [LinkAddress] {
        var result: Set<LinkAddress> = []
        for f in c.new.functions where !moved.contains(f.index) && c.relation[f.index].isKept {
            for r in f.references where r.kind == .address && c.newData.tables[r.target] == nil { result.insert(r.target) }
        }
        for a in c.new.pointedTo where c.new.function(at: a) == nil { result.insert(a) }
        return result.sorted()
    }

    /// Where the cell was in the old build: by votes, or between neighbours that moved alike.
    private static func counterpart(_ c: Comparison, _ x: LinkAddress, _ section: Section) -> LinkAddress? {
        if let there = c.oldBySymbol(x) ?? c.map.majority(x) { return there }
        let (below, above) = c.map.neighbours(x)
        let low = below.flatMap { section.contains($0.new) ? $0.old - $0.new : nil }
        let high = above.flatMap { section.contains($0.new) ? $0.old - $0.new : nil }
        let distance: Int
        switch (low, high) {
        case (let low?, let high?):
            guard low == high else { return nil }
            distance = low
        case (let one?, nil), (nil, let one?):
            // With a neighbour on one side only, the section must have kept its size: nothing came or went between.
            guard c.old.file.section(section.name)?.size == section.size else { return nil }
            distance = one
        case (nil, nil):
            guard let old = c.old.file.section(section.name), old.size == section.size else { return nil }
            distance = old.address - section.address
        }
        let there = x + distance
        return c.old.file.section(at: there)?.name == section.name ? there : nil
    }

    /// A string that ends its cell, padding aside: its length; nil for anything else.
    static func literal(_ cell: ArraySlice<UInt8>) -> Int? {
        guard let end = cell.firstIndex(of: 0), end > cell.startIndex else { return nil }
        let text = cell[..<end].allSatisfy { $0 >= 0x20 || $0 == 9 || $0 == 10 || $0 == 13 || $0 == 27 }
        return text && cell[end...].allSatisfy { $0 == 0 } ? cell.count : nil
    }

    /// Whether what begins at `y` may extend to `x`. A string ends at its NUL; but equal strings in a row may be rows.
    private static func reaches(_ c: Comparison, _ y: LinkAddress, _ x: LinkAddress, _ changed: Int?) -> Bool {
        let size = c.newData.next(after: y, in: c.new) - y
        guard let cell = c.new.file.read(y, size), let length = literal(cell) else { return true }
        guard y + size == x else { return false }
        if let changed { return changed == length }
        // Text behind text that is no single string: rows of a table.
        return (c.new.file.read(x, 1)?.first ?? 0) >= 0x20
    }
}
