// Where data objects begin, as far as code, relocations and symbols tell: stripped data has no other seams.

import ELF

struct DataLayout: Sendable {
    /// Every address that something refers to, sorted.
    let seams: [LinkAddress]
    /// Addresses that code forms or pointers hold, sorted: who has one can go on from there.
    let taken: [LinkAddress]
    /// Jump tables of all functions, by address.
    private(set) var tables: [LinkAddress: JumpTable] = [:]
    /// For each seam, where an object that begins there ends at the latest.
    private(set) var objectEnds: [LinkAddress]
    /// Functions (indices) that use a table.
    private(set) var tableOwner: [LinkAddress: Int] = [:]

    init(_ image: CodeImage) {
        var all: Set<LinkAddress> = [], taken = image.pointedTo
        for f in image.functions {
            for r in f.references where !r.kind.isBranch {
                all.insert(r.target)
                if r.kind == .address, !r.isOnlyCompared { taken.insert(r.target) }
            }
        }
        all.formUnion(taken)
        self.taken = taken.sorted()
        for s in image.objectAt.values {
            all.insert(s.value)
            all.insert(s.value + s.size)
        }
        seams = all.sorted()
        let seams = seams
        let entered = image.enteredFunctions()
        for f in image.functions {
            for (address, table) in image.jumpTables(of: f.index, entered: entered, boundary: { Self.next(seams, $0, image) }) {
                tables[address] = table
                tableOwner[address] = f.index
            }
        }
        objectEnds = []
        objectEnds = findObjectEnds(image)
    }

    /// The first seam behind `a`, or the end of its section.
    func next(after a: LinkAddress, in image: CodeImage) -> LinkAddress { Self.next(seams, a, image) }

    private static func next(_ seams: [LinkAddress], _ a: LinkAddress, _ image: CodeImage) -> LinkAddress {
        let end = image.file.section(at: a)?.end ?? a
        var low = 0, high = seams.count
        while low < high {
            let middle = (low + high) / 2
            if seams[middle] <= a { low = middle + 1 } else { high = middle }
        }
        return low < seams.count ? min(seams[low], end) : end
    }
}
