// What code does with an address that it forms: how far from it memory may be read says how much must be the same there.

import ELF
import MachineCode

enum AddressUse: Sendable {
    /// Read through, passed, stored or returned: it is where some object begins.
    case followed
    /// A register is added: any element, and the address itself may lie outside the object (`table[c - 'A']`).
    case indexed
    /// Compared or subtracted and nothing else: the end of an array, or an identity. It says nothing about what begins there.
    case compared
}

extension CodeFunction {
    /// Instructions along which the further way of an address is followed, branches included.
    static let useStepsMax = 3000

    /// The use of the address that the instruction at this index forms, on all ways from there; `indexed`, which is the
    /// widest, when the ways cannot be followed to their end.
    func addressUse(_ index: Int) -> AddressUse {
        guard instructions[index].takesAddress, let first = instructions[index].destination else { return .indexed }
        var isFollowed = false, isCompared = false
        var seen: [Int: UInt32] = [:]
        var ways = [(at: index + 1, holders: first.bit)]
        var steps = 0
        while let way = ways.popLast() {
            var (at, holders) = way
            while at < instructions.count, holders & ~(seen[at] ?? 0) != 0 {
                steps += 1
                guard steps < Self.useStepsMax else { return .indexed }
                seen[at, default: 0] |= holders
                let i = instructions[at]
                if i.reads & holders != 0 {
                    let base = i.memory.map { ($0.base?.bit ?? 0) & holders != 0 } ?? false
                    let other = i.memory.map { ($0.index?.bit ?? 0) & holders != 0 } ?? false
                    if other || base && i.memory?.index != nil { return .indexed }
                    if base {
                        isFollowed = true
                        if i.takesAddress, let to = i.destination { holders |= to.bit }
                    } else if i.mnemonic == Mnemonic.cmp {
                        isCompared = true
                    } else if i.mnemonic == Mnemonic.sub {
                        if i.immediate != nil { return .indexed }
                        isCompared = true
                        holders &= ~i.writes
                    } else if i.mnemonic == Mnemonic.add {
                        guard let step = i.immediate, step.value == 1 else { return .indexed }
                        isFollowed = true
                    } else if i.mnemonic == Mnemonic.mov, let to = i.destination, i.memory == nil, i.ripRelative == nil {
                        holders |= to.bit
                    } else {
                        isFollowed = true
                        // A conditional move or an exchange passes it on as well.
                        if let to = i.destination, i.memory == nil { holders |= to.bit }
                    }
                } else {
                    holders &= ~i.writes
                }
                let target = i.branchTarget.flatMap { instructionIndex(at: $0) }
                switch i.flow {
                case .next: at += 1
                case .call:
                    if holders & Register.passed != 0 { isFollowed = true }
                    holders &= ~Register.lostInCalls
                    at += 1
                case .conditional:
                    if let target { ways.append((target, holders)) } else { isFollowed = true }
                    at += 1
                case .jump:
                    // Out of the function with it: passed on. Through a table: to all places of a switch.
                    if i.isIndirect { return .indexed }
                    guard let target else {
                        isFollowed = true
                        at = instructions.count
                        continue
                    }
                    at = target
                case .return, .stop:
                    if holders & Register.rax.bit != 0 { isFollowed = true }
                    at = instructions.count
                }
            }
        }
        return isCompared && !isFollowed ? .compared : .followed
    }

    /// The instruction that begins at this offset.
    private func instructionIndex(at offset: Int) -> Int? {
        var low = 0, high = instructions.count
        while low < high {
            let middle = (low + high) / 2
            if instructions[middle].offset < offset { low = middle + 1 } else { high = middle }
        }
        return low < instructions.count && instructions[low].offset == offset ? low : nil
    }

    /// Fills in the uses of all addresses that the function forms. Arrays that are walked to an end are used in all their
    /// length, whatever they begin with. `section` is the index of the one that holds an address.
    mutating func findAddressUses(_ section: (LinkAddress) -> Int?) {
        for k in references.indices where references[k].kind == .address { references[k].use = addressUse(references[k].instruction) }
        let ends = references.filter { $0.kind == .address && $0.use == .compared }.map {
            (address: $0.target, section: section($0.target + -1))
        }
        guard !ends.isEmpty else { return }
        for k in references.indices where references[k].use == .followed {
            let start = references[k].target
            let isWalked = ends.contains { $0.address > start && $0.address - start <= DataLayout.walkMax && $0.section == section(start) }
            if isWalked { references[k].use = .indexed }
        }
    }
}

extension Register {
    /// Masks of the argument registers, and of those that a call does not preserve (System V ABI, 3.2.1).
    static let passed = Register.arguments.reduce(UInt32(0)) { $0 | $1.bit }
    static let lostInCalls = passed | Register.rax.bit | Register(10).bit | Register(11).bit
}
