// What code does with an address that it forms. One that is only compared may be the end of an array, which is also where
// the next object begins: it says nothing about that object.

import MachineCode

extension CodeFunction {
    /// Instructions in which the further way of an address is looked for.
    static let useWindow = 400

    /// True when the address formed by the instruction at this index is compared or subtracted, and nothing else as far as
    /// can be seen: never read through, stored, passed or returned.
    func onlyCompares(_ index: Int) -> Bool {
        guard instructions[index].takesAddress, let first = instructions[index].destination else { return false }
        var holders = first.bit
        var compared = false
        for i in instructions[(index + 1)...].prefix(Self.useWindow) {
            let isRead = i.reads & holders != 0
            if isRead {
                let isMemory = i.memory.map { m in (m.base?.bit ?? 0) & holders != 0 || (m.index?.bit ?? 0) & holders != 0 } ?? false
                if isMemory { return false }
                if i.mnemonic == Mnemonic.cmp {
                    compared = true
                } else if i.mnemonic == Mnemonic.sub {
                    compared = true
                    holders &= ~i.writes
                } else if i.mnemonic == Mnemonic.mov, let to = i.destination, i.memory == nil, i.ripRelative == nil {
                    holders |= to.bit
                } else {
                    return false
                }
            } else {
                holders &= ~i.writes
            }
            if i.flow == .call {
                // Passed on, if it is where an argument goes; otherwise lost, unless the callee preserves it.
                if holders & Register.passed != 0 { return false }
                holders &= ~Register.lostInCalls
            }
            if i.flow == .return, holders & Register.rax.bit != 0 { return false }
            if holders == 0 { break }
        }
        return compared
    }
}

extension Register {
    /// Masks of the argument registers, and of those that a call does not preserve (System V ABI, 3.2.1).
    static let passed = Register.arguments.reduce(UInt32(0)) { $0 | $1.bit }
    static let lostInCalls = passed | Register.rax.bit | Register(10).bit | Register(11).bit
}
