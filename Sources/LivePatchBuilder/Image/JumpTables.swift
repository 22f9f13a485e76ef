// Finds the tables behind `switch`: arrays of 32-bit distances from the table to places in one function. They are data
// about code, so they are compared and moved as code.

import ELF
import MachineCode

struct JumpTable: Sendable, Equatable {
    static let entriesMax = 65_536

    var address: LinkAddress
    /// Where each entry goes.
    var targets: [LinkAddress]
}

extension CodeImage {
    /// The jump tables that a function uses, by table address. `boundary` gives the next address after one that anything refers to.
    func jumpTables(of index: Int, boundary: (LinkAddress) -> LinkAddress) -> [LinkAddress: JumpTable] {
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
            var targets: [LinkAddress] = []
            while targets.count < limit, let raw = file.read(r.target + targets.count * 4, 4) {
                let distance = raw.reversed().reduce(UInt32(0)) { $0 << 8 | UInt32($1) }
                let target = r.target + Int(Int32(bitPattern: distance))
                guard isPartOf(target, index) else { break }
                targets.append(target)
            }
            if !targets.isEmpty { result[r.target] = JumpTable(address: r.target, targets: targets) }
        }
        return result
    }

    /// True when `a` is the start of an instruction in the function, or in a nameless part of one that jumps back into it.
    private func isPartOf(_ a: LinkAddress, _ index: Int) -> Bool {
        guard let g = function(at: a) else { return false }
        let f = functions[g]
        guard f.startsInstruction(at: a - f.start) else { return false }
        if g == index { return true }
        guard f.names.isEmpty else { return false }
        let home = functions[index]
        return f.references.contains { $0.kind.isBranch && $0.kind != .call && home.contains($0.target) && $0.target != home.start }
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
