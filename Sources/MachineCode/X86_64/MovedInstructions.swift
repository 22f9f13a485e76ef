// The instructions under a jump, rewritten to do the same somewhere else.

import ELF

/// Whole instructions taken from one place and made to work at another.
public struct MovedInstructions: Sendable, Equatable {
    /// What does at the new place what `consumed` bytes did at the old one, as long as control falls through.
    public var bytes: [UInt8]
    public var consumed: Int
    /// Where each instruction began and begins: offsets from the old place and from the new one.
    public var oldStarts: [Int] = []
    public var newStarts: [Int] = []

    /// Takes instructions from the start of `code` until they cover `count` bytes. Nil when one cannot be moved: it is
    /// unknown, a short loop, or reaches further than 32 bits from the new place.
    public init?(_ code: [UInt8], covering count: Int, from old: RuntimeAddress, to new: RuntimeAddress) {
        bytes = []
        consumed = 0
        for i in decode(code[...]).instructions {
            if consumed >= count { break }
            let end = old + i.end
            oldStarts.append(i.offset)
            newStarts.append(bytes.count)
            let original = Array(code[i.offset..<i.end])
            if let branch = i.branch {
                guard let opcode = Self.longForm(original, i) else { return nil }
                bytes += opcode
                guard Self.append(distanceTo: end + branch.distance, from: new, &bytes) else { return nil }
            } else if let field = i.ripRelative {
                let start = bytes.count
                bytes += original
                guard let distance = Int32(exactly: (end + field.distance) - (new + bytes.count)) else { return nil }
                for k in 0..<4 {
                    bytes[start + field.offset + k] = UInt8(truncatingIfNeeded: UInt32(bitPattern: distance) >> UInt32(8 * k))
                }
            } else {
                bytes += original
            }
            consumed = i.end
        }
        guard consumed >= count else { return nil }
    }

    /// The opcode of the same branch with a 32-bit distance; nil for loop and jrcxz, which have none.
    private static func longForm(_ code: [UInt8], _ i: Instruction) -> [UInt8]? {
        switch i.flow {
        case .call: return [0xe8]
        case .jump: return [0xe9]
        case .conditional:
            let op = code.dropLast(i.branch?.size ?? 0)
            if let short = op.last, short & 0xf0 == 0x70 { return [0x0f, 0x80 | short & 0x0f] }
            if op.count >= 2, op[op.endIndex - 2] == 0x0f, op[op.endIndex - 1] & 0xf0 == 0x80 { return [0x0f, op[op.endIndex - 1]] }
            return nil
        default: return nil
        }
    }

    private static func append(distanceTo target: RuntimeAddress, from place: RuntimeAddress, _ bytes: inout [UInt8]) -> Bool {
        guard let distance = Int32(exactly: target - (place + bytes.count + 4)) else { return false }
        bytes.append32(UInt32(bitPattern: distance))
        return true
    }
}

/// What a site jumps to: old code until one byte says otherwise.
public enum CommitStub {
    /// Room for each; the code is shorter.
    public static let size = 64
    /// Where the moved instructions begin in it.
    public static let movedOffset = 13

    /// `cmp byte [commit], 0; jne new;` the moved instructions; `jmp` behind them. Any set of sites that jump to such
    /// stubs runs the old code, and one store to `commit` makes all of them run the new. Flags are not live at a function's
    /// entry. Nil when an instruction cannot be moved or a distance does not fit.
    public static func code(
        at place: RuntimeAddress, site: RuntimeAddress, covering length: Int, oldCode: [UInt8], new: RuntimeAddress, commit: RuntimeAddress
    ) -> [UInt8]? {
        var bytes: [UInt8] = [0x80, 0x3d]
        guard let toCommit = Int32(exactly: commit - (place + 7)) else { return nil }
        bytes.append32(UInt32(bitPattern: toCommit))
        bytes += [0x00, 0x0f, 0x85]
        guard let toNew = Int32(exactly: new - (place + 13)) else { return nil }
        bytes.append32(UInt32(bitPattern: toNew))
        guard let moved = MovedInstructions(oldCode, covering: length, from: site, to: place + bytes.count) else { return nil }
        bytes += moved.bytes
        guard let back = Jump.bytes(from: place + bytes.count, to: site + moved.consumed) else { return nil }
        bytes += back
        guard bytes.count <= size else { return nil }
        return bytes + [UInt8](repeating: 0xcc, count: size - bytes.count)
    }
}
