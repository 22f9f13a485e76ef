// Finds the tables behind `switch`: arrays of 32-bit distances from the table to places in one function. They are data
// about code, so they are compared and moved as code.

import ELF
import MachineCode

struct JumpTable: Sendable, Equatable {
    static let entriesMax = 65_536

    var address: LinkAddress
    /// Where each entry goes.
    var targets: [LinkAddress]
    /// What follows the last entry leads to code too, but not surely to the function's own: the table may be longer.
    var isCut = false
}

extension CodeImage {
    /// The jump tables that a function uses, by table address. `boundary` gives the next address after one that anything
    /// refers to; `entered` are functions that are called, exported or pointed to.
    func jumpTables(of index: Int, entered: Set<Int>, boundary: (LinkAddress) -> LinkAddress) -> [LinkAddress: JumpTable] {
        let f = functions[index]
        guard f.instructions.contains(where: { $0.flow == .jump && $0.isIndirect && $0.ripRelative == nil }) else { return [:] }
        // movsxd r, dword [base + index*4]: the shape of a table look-up; `base` says which lea made the address.
        let bases = Set(
            f.instructions.compactMap { i -> Register? in
                guard i.mnemonic == Mnemonic.movsxd, let m = i.memory, m.scale == 4, m.index != nil, m.displacement == 0 else { return nil }
                return m.base
            })
        guard !bases.isEmpty else { return [:] }
        var result: [LinkAddress: JumpTable] = [:]
        for r in f.references where r.kind == .address && result[r.target] == nil {
            guard let destination = f.instructions[r.instruction].destination, bases.contains(destination) else { continue }
            let limit = min(JumpTable.entriesMax, (boundary(r.target) - r.target) / 4)
            guard limit > 0, let section = file.section(at: r.target), !section.isExecutable, !section.isWritable else { continue }
            var targets: [LinkAddress] = [], isCut = false
            while targets.count < limit, let raw = file.read(r.target + targets.count * 4, 4) {
                let distance = raw.reversed().reduce(UInt32(0)) { $0 << 8 | UInt32($1) }
                let target = r.target + Int(Int32(bitPattern: distance))
                guard let g = function(at: target), functions[g].startsInstruction(at: target - functions[g].start) else { break }
                guard isPart(g, of: index, entered) else {
                    isCut = true
                    break
                }
                targets.append(target)
            }
            if !targets.isEmpty || isCut { result[r.target] = JumpTable(address: r.target, targets: targets, isCut: isCut) }
        }
        return result
    }

    /// True for the function itself, and for the cold parts of one: nobody enters them by a call or a pointer.
    private func isPart(_ g: Int, of index: Int, _ entered: Set<Int>) -> Bool {
        if g == index || !entered.contains(g) { return true }
        guard functions[g].names.isEmpty else { return false }
        let home = functions[index]
        return functions[g].references.contains {
            $0.kind.isBranch && $0.kind != .call && home.contains($0.target) && $0.target != home.start
        }
    }

    /// Functions that are called, exported or pointed to.
    func enteredFunctions() -> Set<Int> {
        var result = addressTaken()
        for f in functions {
            if f.isExported { result.insert(f.index) }
            for r in f.references where r.kind == .call { if let g = function(at: r.target) { result.insert(g) } }
        }
        return result
    }
}

extension CodeFunction {
    /// True when an instruction begins at this offset.
    func startsInstruction(at offset: Int) -> Bool {
        var low = 0, high = instructions.count
        while low < high {
            let middle = (low + high) / 2
            if instructions[middle].offset < offset { low = middle + 1 } else { high = middle }
        }
        return low < instructions.count && instructions[low].offset == offset
    }
}
