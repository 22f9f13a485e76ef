// One decoded instruction: how long it is, where it can go next, what addresses its bytes hold.

/// A general-purpose register by its machine number (rax 0, rcx 1, rdx 2, rbx 3, rsp 4, rbp 5, rsi 6, rdi 7, r8…r15).
public struct Register: Hashable, Sendable, CustomStringConvertible {
    public let number: UInt8
    public init(_ number: UInt8) { self.number = number }
    public static let rsp = Register(4)
    public static let rax = Register(0)
    /// Integer argument registers in order (System V ABI, 3.2.3): rdi rsi rdx rcx r8 r9.
    public static let arguments: [Register] = [7, 6, 2, 1, 8, 9].map(Register.init)
    public var bit: UInt32 { number < 32 ? 1 << UInt32(number) : 0 }
    public var description: String {
        let names = ["rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi"]
        return number < 8 ? names[Int(number)] : "r\(number)"
    }
}

public struct Instruction: Sendable {
    public enum Flow: UInt8, Sendable { case next = 0, call, jump, conditional, `return`, stop }

    /// A field of the instruction that holds a distance to somewhere.
    public struct Field: Sendable, Equatable {
        /// Byte offset of the field inside the instruction.
        public var offset: Int
        /// Size in bytes: 1 or 4.
        public var size: Int
        /// Distance from the end of the instruction.
        public var distance: Int
    }

    /// A memory operand that is not relative to the instruction pointer.
    public struct Memory: Sendable, Equatable {
        public var base: Register?
        public var index: Register?
        public var scale: Int
        public var displacement: Int
        public var displacementOffset: Int
        public var displacementSize: Int
    }

    public struct Immediate: Sendable, Equatable {
        public var offset: Int
        public var size: Int
        public var value: Int64
    }

    /// Byte offset from the start of the decoded range.
    public var offset: Int
    public var length: Int
    /// The decoder's number for the operation; equal numbers mean equal operations.
    public var mnemonic: UInt16
    public var flow: Flow
    /// Control flow through a register or memory.
    public var isIndirect: Bool
    public var branch: Field?
    public var ripRelative: Field?
    public var memory: Memory?
    public var immediate: Immediate?
    /// `lea`: the address is formed, memory is not touched.
    public var takesAddress: Bool
    public var writesMemory: Bool
    /// Size of the memory access in bytes; 0 without one.
    public var accessBytes: Int
    /// The memory operand is relative to fs or gs.
    public var usesSegment: Bool
    public var destination: Register?
    public var source: Register?
    /// Masks of general-purpose registers, hidden operands included.
    public var reads: UInt32
    public var writes: UInt32

    public var end: Int { offset + length }
    /// The offset this relative branch goes to, in the same terms as `offset`.
    public var branchTarget: Int? { branch.map { end + $0.distance } }
    /// A plain store to a fixed address in the first page, where nothing is: programs end themselves so (`*(volatile int *)1 = 0`),
    /// and compilers leave out what would follow.
    public var storesToFirstPage: Bool {
        guard mnemonic == Mnemonic.mov, writesMemory, !usesSegment, let m = memory else { return false }
        return m.base == nil && m.index == nil && m.displacement >= 0 && m.displacement < 4096
    }
    public var isPadding: Bool { mnemonic == Mnemonic.nop || mnemonic == Mnemonic.int3 }
}
