// A piece of machine code that makes system calls in a borrowed thread and gives the thread back as it was, by itself:
// whoever started it may die at any moment after.

import ELF

/// The thread is sent there with its stack pointer lowered by 136 bytes (past the red zone) and the address it came
/// from written at the new top. The stub saves every register it or the kernel changes, and returns with `ret 128`.
///
/// A thread that was blocked in a system call has two ways on, and only the kernel knows which, at the moment the
/// thread goes on: behind the call (it failed with EINTR), or two bytes earlier, at the `syscall` instruction again.
/// So the stub has two entries two bytes apart; the kernel's step back leads to the earlier one, which moves the
/// return address back by the same two bytes.
///
/// A call that fails ends the sequence. If the first one was a mapping that had succeeded, it is undone, and a file that was
/// opened is closed.
struct CallStub {
    /// What the thread's stack pointer is lowered by.
    static let stackBytes = 136
    /// Stack used below the lowered stack pointer: flags and nine registers.
    static let pushedBytes = 80
    private static let save: [UInt8] = [0x50, 0x51, 0x52, 0x56, 0x57, 0x41, 0x50, 0x41, 0x51, 0x41, 0x52, 0x41, 0x53]
    private static let restore: [UInt8] = [0x41, 0x5b, 0x41, 0x5a, 0x41, 0x59, 0x41, 0x58, 0x5f, 0x5e, 0x5a, 0x59, 0x58]

    /// What every stub begins with: both its entries. Whoever finds it in a process has found a stub.
    static let opening: [UInt8] = [
        0x9c, 0x48, 0x83, 0x6c, 0x24, 0x08, 0x02, 0xeb, 0x03,  // pushfq; sub qword [rsp+8], 2; jmp common
        0xeb, 0xf5,  // the second entry, two bytes before the first: jmp to the beginning
    ]

    let bytes: [UInt8]
    /// Offset where a thread is sent.
    let entry: Int
    /// Offsets behind each call's `syscall` instruction: the instruction pointer at its stops.
    let callEnds: [Int]
    /// The same for the call that undoes the first, if there is one.
    let undoEnd: Int?

    init(_ calls: [SystemCall]) {
        var code = Self.opening
        entry = code.count
        code.append(0x9c)  // pushfq
        code += Self.save  // common
        var ends: [Int] = []
        var toUndo: [Int] = []
        var toEnd: [Int] = []
        var toClose: [Int] = []
        var path: (bytes: [UInt8], from: Int)?
        for (i, call) in calls.enumerated() {
            code += Self.load(call)
            ends.append(code.count)
            if case .openFile(let name) = call {
                path = (Array(name.utf8) + [0], code.count - Self.afterPathBytes)
                code += [0x48, 0x85, 0xc0, 0x0f, 0x88, 0, 0, 0, 0]  // test rax, rax; js
                toUndo.append(code.count)
                code += [0x49, 0x89, 0xc0]  // mov r8, rax: no system call changes it
                continue
            }
            if case .closeFile = call { continue }
            if call.success != 0 {
                code += [0x49, 0xbb] + little(UInt64(bitPattern: call.success), 8)  // mov r11, address
                code += [0x4c, 0x39, 0xd8]  // cmp rax, r11
            } else {
                code += [0x48, 0x85, 0xc0]  // test rax, rax
            }
            if i == calls.count - 1, i == 0 { continue }
            code += [0x0f, 0x85, 0, 0, 0, 0]  // jne
            if i == 0 { toEnd.append(code.count) } else if path != nil { toClose.append(code.count) } else { toUndo.append(code.count) }
        }
        var undone: Int?
        let undoAt: Int, closeAt: Int
        if calls.count > 1, case .mapAnonymous(let address, let bytes, _) = calls[0] {
            code += [0xe9, 0, 0, 0, 0]
            toEnd.append(code.count)
            closeAt = code.count
            if path != nil { code += Self.load(.closeFile) }
            undoAt = code.count
            code += Self.load(.unmap(address, bytes: bytes))
            undone = code.count
        } else {
            undoAt = code.count
            closeAt = code.count
        }
        let end = code.count
        code += Self.restore + [0x9d, 0xc2, 0x80, 0x00]  // popfq; ret 128
        if let path {
            code.replaceSubrange(path.from - 4..<path.from, with: little(UInt64(code.count - path.from), 4))
            code += path.bytes
        }
        for (sources, target) in [(toEnd, end), (toUndo, undoAt), (toClose, closeAt)] {
            for source in sources { code.replaceSubrange(source - 4..<source, with: little(UInt64(target - source), 4)) }
        }
        bytes = code
        callEnds = ends
        undoEnd = undone
    }

    /// Between the distance to a path and the end of its `syscall`.
    private static let afterPathBytes = 9

    private static func load(_ call: SystemCall) -> [UInt8] {
        let range = call.range
        var code: [UInt8] = [0xb8] + little(UInt64(call.number), 4)  // mov eax
        if case .openFile = call {
            code += [0x48, 0x8d, 0x3d, 0, 0, 0, 0]  // lea rdi, [path]
            return code + [0xbe] + little(UInt64(SystemCall.openFlags), 4) + [0x31, 0xd2, 0x0f, 0x05]  // mov esi; xor edx, edx; syscall
        }
        if case .closeFile = call { return code + [0x4c, 0x89, 0xc7, 0x0f, 0x05] }  // mov rdi, r8; syscall
        code += [0x48, 0xbf] + little(range.lowerBound.value, 8)  // mov rdi
        code += [0x48, 0xbe] + little(UInt64(range.upperBound - range.lowerBound), 8)  // mov rsi
        code += [0xba] + little(UInt64(call.third), 4)  // mov edx
        if case .mapAnonymous = call {
            code += [0x41, 0xba] + little(UInt64(SystemCall.mapFlags), 4)  // mov r10d
            code += [0x49, 0xc7, 0xc0, 0xff, 0xff, 0xff, 0xff]  // mov r8, -1
            code += [0x45, 0x31, 0xc9]  // xor r9d, r9d
        } else if case .mapFile(_, _, _, let offset) = call {
            code += [0x41, 0xba] + little(UInt64(SystemCall.mapFileFlags), 4)  // mov r10d
            code += [0x41, 0xb9] + little(UInt64(offset), 4)  // mov r9d; r8 is the descriptor
        } else if case .movePage(_, let onto) = call {
            code += [0x41, 0xba] + little(UInt64(SystemCall.moveFlags), 4)  // mov r10d
            code += [0x49, 0xb8] + little(onto.value, 8)  // mov r8, onto
        }
        return code + [0x0f, 0x05]
    }
}

private func little(_ value: UInt64, _ count: Int) -> [UInt8] {
    (0..<count).map { UInt8(truncatingIfNeeded: value >> UInt64(8 * $0)) }
}
