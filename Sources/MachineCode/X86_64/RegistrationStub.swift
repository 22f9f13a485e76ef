// Machine code that lets a borrowed thread call a function of the program once, and gives the thread back as it was, by
// itself: whoever sent it there may die at any moment after.

import ELF

/// Two detours, one that registers unwind data and one that takes the registration back. A thread is sent to one with its
/// stack pointer lowered by 136 bytes (past the red zone) and the address it came from written at the new top, as to a call
/// stub: two entries two bytes apart, because the kernel may step back to the `syscall` instruction a thread was blocked in.
///
/// Which of several threads makes the call, and that it is made once, is decided by a word in the block: the detour goes on
/// only if it finds the word as it must be and has itself changed it. Signals are blocked around the call; general, vector
/// and x87 registers are saved on the thread's stack.
public struct RegistrationStub: Sendable {
    /// Room for both; the code is shorter.
    public static let size = 640
    /// What the thread's stack pointer is lowered by, the last eight bytes for the way back.
    public static let stackBytes = 136
    /// The thread's stack must have this much below its stack pointer: vector registers take up to 11 KiB, the rest is for
    /// the function.
    public static let stackRoomBytes = 32 << 10

    /// The block in writable memory: the word, the addresses of both functions, and the object that the unwinder keeps its
    /// notes in (libgcc's `struct object`: 48 or 56 bytes).
    public enum Block {
        public static let size = 256
        public static let stateOffset = 0
        public static let registerOffset = 8
        public static let deregisterOffset = 16
        public static let objectOffset = 64
    }
    public enum State: UInt32, Sendable {
        case unregistered = 0
        /// A thread is registering, or died in it.
        case registering = 1
        case registered = 2
        case deregistering = 3
    }

    public let bytes: [UInt8]
    /// Offsets at which a thread is sent into the detours.
    public let registerEntry: Int
    public let deregisterEntry: Int
    /// Offsets behind the last system call of each: from there on nothing can fail.
    public let registerEnd: Int
    public let deregisterEnd: Int

    /// `begin`: the unwind data. Nil when a distance does not fit 32 bits.
    public init?(at place: RuntimeAddress, block: RuntimeAddress, begin: RuntimeAddress) {
        var code = Assembler(place: place)
        let first = code.detour(from: .unregistered, by: .registering, to: .registered, Block.registerOffset, block, begin)
        let second = code.detour(from: .registered, by: .deregistering, to: .unregistered, Block.deregisterOffset, block, begin)
        guard code.isInRange, code.bytes.count <= Self.size else { return nil }
        bytes = code.bytes + [UInt8](repeating: 0xcc, count: Self.size - code.bytes.count)
        (registerEntry, registerEnd) = first
        (deregisterEntry, deregisterEnd) = second
    }
}

private struct Assembler {
    let place: RuntimeAddress
    var bytes: [UInt8] = []
    var isInRange = true

    private mutating func add(_ code: UInt8...) { bytes += code }
    private mutating func add32(_ opcode: [UInt8], _ value: UInt32) {
        bytes += opcode
        bytes.append32(value)
    }
    private mutating func address(_ opcode: [UInt8], _ target: RuntimeAddress) {
        let end = place + (bytes.count + opcode.count + 4)
        guard let distance = Int32(exactly: target - end) else {
            isInRange = false
            return
        }
        add32(opcode, UInt32(bitPattern: distance))
    }
    /// A jump forward; returns where its distance is.
    private mutating func forward(_ opcode: [UInt8]) -> Int {
        add32(opcode, 0)
        return bytes.count
    }
    private mutating func land(_ source: Int) {
        let distance = UInt32(bytes.count - source)
        for k in 0..<4 { bytes[source - 4 + k] = UInt8(truncatingIfNeeded: distance >> UInt32(8 * k)) }
    }
    /// rt_sigprocmask(SIG_SETMASK, rsi, rdx, 8)
    private mutating func setMask() {
        add32([0xb8], 14)
        add32([0xbf], 2)
        add32([0x41, 0xba], 8)
        add(0x0f, 0x05)
    }

    mutating func detour(
        from: RegistrationStub.State, by claimed: RegistrationStub.State, to done: RegistrationStub.State, _ function: Int,
        _ block: RuntimeAddress, _ begin: RuntimeAddress
    ) -> (entry: Int, end: Int) {
        while bytes.count % 16 != 0 { add(0xcc) }
        add(0x9c, 0x48, 0x83, 0x6c, 0x24, 0x08, 0x02, 0xeb, 0x03)  // pushfq; sub qword [rsp+8], 2; jmp common
        add(0xeb, 0xf5)  // the second entry: jmp to the beginning
        let entry = bytes.count
        add(0x9c)  // pushfq
        // common: push rax rcx rdx rsi rdi r8 r9 r10 r11 rbx rbp
        add(0x50, 0x51, 0x52, 0x56, 0x57, 0x41, 0x50, 0x41, 0x51, 0x41, 0x52, 0x41, 0x53, 0x53, 0x55)
        add(0xfc, 0x48, 0x89, 0xe3)  // cld; mov rbx, rsp
        address([0x48, 0x8d, 0x2d], block)  // lea rbp, [block]
        add32([0xb8], from.rawValue)  // mov eax
        add32([0xb9], claimed.rawValue)  // mov ecx
        add(0xf0, 0x0f, 0xb1, 0x4d, UInt8(RegistrationStub.Block.stateOffset))  // lock cmpxchg [rbp], ecx
        let toOut = forward([0x0f, 0x85])
        add(0x48, 0x89, 0xde)  // mov rsi, rbx
        add32([0xb8], 0xd)  // mov eax: the size of what xsave writes
        add(0x31, 0xc9, 0x0f, 0xa2)  // xor ecx, ecx; cpuid
        add(0x89, 0xd8, 0x48, 0x89, 0xf3)  // mov eax, ebx; mov rbx, rsi
        add(0x48, 0x29, 0xc4, 0x48, 0x83, 0xe4, 0xc0)  // sub rsp, rax; and rsp, -64
        // xsave leaves a part of its header alone that xrstor wants to be zero.
        add(0x31, 0xc0)  // xor eax, eax
        add32([0x48, 0x8d, 0xbc, 0x24], 512)  // lea rdi, [rsp+512]
        add32([0xb9], 8)  // mov ecx
        add(0xf3, 0x48, 0xab)  // rep stosq
        add(0x83, 0xc8, 0xff, 0x83, 0xca, 0xff)  // or eax, -1; or edx, -1
        add(0x48, 0x0f, 0xae, 0x24, 0x24)  // xsave64 [rsp]
        add(0x48, 0x83, 0xec, 0x40)  // sub rsp, 64
        add32([0x48, 0xc7, 0x04, 0x24], 0xffff_ffff)  // mov qword [rsp], -1
        add(0x48, 0x89, 0xe6, 0x48, 0x8d, 0x54, 0x24, 0x08)  // mov rsi, rsp; lea rdx, [rsp+8]
        setMask()
        add(0x85, 0xc0)  // test eax, eax
        let toUnclaim = forward([0x0f, 0x85])
        address([0x48, 0x8d, 0x3d], begin)  // lea rdi, [begin]
        add(0x48, 0x8d, 0x75, UInt8(RegistrationStub.Block.objectOffset))  // lea rsi, [rbp+object]
        add(0xff, 0x55, UInt8(function))  // call [rbp+function]
        add32([0xc7, 0x45, UInt8(RegistrationStub.Block.stateOffset)], done.rawValue)  // mov dword [rbp]
        add(0x48, 0x8d, 0x74, 0x24, 0x08, 0x31, 0xd2)  // lea rsi, [rsp+8]; xor edx, edx
        setMask()
        let end = bytes.count
        let toRestore = forward([0xe9])
        land(toUnclaim)
        add32([0xc7, 0x45, UInt8(RegistrationStub.Block.stateOffset)], from.rawValue)
        land(toRestore)
        add(0x83, 0xc8, 0xff, 0x83, 0xca, 0xff)  // or eax, -1; or edx, -1
        add(0x48, 0x0f, 0xae, 0x6c, 0x24, 0x40)  // xrstor64 [rsp+64]
        land(toOut)
        add(0x48, 0x89, 0xdc, 0x5d, 0x5b)  // mov rsp, rbx; pop rbp rbx
        add(0x41, 0x5b, 0x41, 0x5a, 0x41, 0x59, 0x41, 0x58, 0x5f, 0x5e, 0x5a, 0x59, 0x58)  // and the others
        add(0x9d, 0xc2, 0x80, 0x00)  // popfq; ret 128
        return (entry, end)
    }
}
