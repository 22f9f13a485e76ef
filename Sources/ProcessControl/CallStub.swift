// System calls made by a thread of the target on our behalf, so that the thread can finish them and go on even if we die
// at any moment. The code that does it lies in zero bytes between the end of a text segment and the end of its page.

import CLinux
import ELF
import Glibc

/// A system call for the target to make.
public enum SystemCall: Sendable, Equatable {
    /// Private, anonymous, readable; fails if anything is there.
    case mapAnonymous(at: RuntimeAddress, bytes: Int)
    case protect(RuntimeAddress, bytes: Int, Mapping.Permissions)
    case unmap(RuntimeAddress, bytes: Int)

    /// Number and arguments: rdi, rsi, rdx, r10, r8, r9.
    var words: (number: UInt32, arguments: [UInt64]) {
        switch self {
        case .mapAnonymous(let a, let n): (9, [a.value, UInt64(n), 1, 0x10_0022, UInt64.max, 0])  // PROT_READ; FIXED_NOREPLACE | ANONYMOUS | PRIVATE
        case .protect(let a, let n, let p): (10, [a.value, UInt64(n), UInt64(p.rawValue & 7)])
        case .unmap(let a, let n): (11, [a.value, UInt64(n)])
        }
    }

    var name: String {
        switch self {
        case .mapAnonymous: "mmap"
        case .protect: "mprotect"
        case .unmap: "munmap"
        }
    }
}

/// The machine code of a chain of calls.
struct CallStub {
    /// Enter here with rsp = old rsp - 136 and the old rip at rsp.
    static let entry = 2
    let code: [UInt8]

    /// Saves all that it or the kernel changes, makes the calls, restores, returns to the old rip behind the red zone.
    /// If the kernel restarts an interrupted call it subtracts 2 from rip: offset 0 then subtracts 2 from the old rip too.
    init(_ calls: [SystemCall]) {
        var body: [UInt8] = [0x50, 0x51, 0x52, 0x56, 0x57, 0x41, 0x50, 0x41, 0x51, 0x41, 0x52, 0x41, 0x53]  // push rax rcx rdx rsi rdi r8-r11
        let loads: [[UInt8]] = [[0x48, 0xbf], [0x48, 0xbe], [0x48, 0xba], [0x49, 0xba], [0x49, 0xb8], [0x49, 0xb9]]
        var exits: [Int] = []
        for (i, call) in calls.enumerated() {
            let (number, arguments) = call.words
            body.append(0xb8)
            body.append32(number)
            for (load, value) in zip(loads, arguments) {
                body += load
                body.append64(value)
            }
            body += [0x0f, 0x05]
            // A mapping that did not come where it was asked for ends the chain: the rest would hit somebody else's memory.
            if case .mapAnonymous(let wanted, _) = call, i + 1 < calls.count {
                body += [0x48, 0xb9]  // mov rcx, wanted
                body.append64(wanted.value)
                body += [0x48, 0x39, 0xc8, 0x0f, 0x85]  // cmp rax, rcx; jne exit
                exits.append(body.count)
                body.append32(0)
            }
        }
        for at in exits {
            let distance = UInt32(body.count - at - 4)
            for k in 0..<4 { body[at + k] = UInt8(truncatingIfNeeded: distance >> UInt32(8 * k)) }
        }
        body += [0x41, 0x5b, 0x41, 0x5a, 0x41, 0x59, 0x41, 0x58, 0x5f, 0x5e, 0x5a, 0x59, 0x58]  // pop in reverse
        body += [0x9d, 0xc2, 0x80, 0x00]  // popfq; ret 128
        let restart: [UInt8] = [0x9c, 0x48, 0x83, 0x6c, 0x24, 0x08, 0x02]  // pushfq; sub qword [rsp+8], 2
        // 0: jmp 8    2: pushfq; jmp short over the restart entry    5: pushfq; sub; then the body
        code = [0xeb, 0x03, 0x9c, 0xeb, UInt8(restart.count)] + restart + body
    }
}

extension Tracer {
    static let stubTimeout: Duration = .seconds(2)
    /// System calls in which a thread can be interrupted without anybody noticing: futex, read, poll, sleeps, accept, select, wait.
    private static let patientCalls: Set<Int> = [202, 0, 7, 35, 230, 43, 288, 23, 270, 271, 61, 219, 34]

    /// Makes one thread of `process` perform `calls` in order; each must succeed. The others keep running.
    /// Returns where the stub lies: nobody runs it again, and its bytes may be cleared when no thread is in it.
    ///
    /// Failures: `no-slack`, `call-failed` with the kernel's reason, `call-timeout`, and those of stopping.
    @discardableResult
    public func perform(_ calls: [SystemCall], in process: ProcessHandle, maps: [Mapping]) throws -> Range<RuntimeAddress> {
        let status = try process.status()
        try Self.refuseUntouchable(status, process.id)
        guard status.state != .stopped else {
            throw Failure(
                "process-stopped", "it is stopped (SIGSTOP), so it cannot map memory for the patch.", at: "process \(process.id)",
                remedy: "Continue it (kill -CONT \(process.id)), then try again.")
        }
        let memory = try process.memory()
        let stub = CallStub(calls)
        let place = try Self.slack(stub.code.count, maps, memory, process.id)
        try memory.write(stub.code, at: place)
        guard try memory.read(at: place, count: stub.code.count) == stub.code else {
            throw Failure("read-back", "the call stub does not read back as written.", at: "process \(process.id)")
        }
        let range = place..<place + stub.code.count
        do {
            try onOwnThread { try Self.run(calls, stub: range, process, memory, status.seccomp) }
        } catch let failure as Failure where failure.code != "call-timeout" {
            // No thread was sent there, or it has left the calls behind and only pops: clearing is for whoever stops all.
            throw failure
        }
        return range
    }

    /// Zero bytes behind the end of an executable segment, in its last page: mapped, executable, used by nobody.
    private static func slack(_ size: Int, _ maps: [Mapping], _ memory: ProcessMemory, _ process: ProcessID) throws(Failure) -> RuntimeAddress {
        let page: UInt64 = 4096
        for mapping in maps where mapping.isFile && mapping.offset.value == 0 && mapping.permissions.contains(.read) {
            guard let image = try? MemoryImage(memory, at: mapping.range.lowerBound) else { continue }
            for segment in image.segments where segment.type == Segment.load && segment.isExecutable && !segment.isWritable {
                let end = image.bias.runtime(segment.address + segment.memorySize)
                let first = RuntimeAddress((end.value + 31) & ~15), last = RuntimeAddress((end.value + page - 1) & ~(page - 1))
                guard last - first >= size, let home = maps.mapping(at: first + -16), home.permissions == [.read, .execute], home.range.upperBound >= last,
                    let bytes = try? memory.read(at: first, count: last - first)
                else { continue }
                // The last stub that fits: earlier ones of ours end where zeros begin.
                var at = bytes.count
                while at > 0, bytes[at - 1] == 0 { at -= 1 }
                at = (at + 31) & ~15
                if at == 16, bytes.first == 0 { at = 0 }
                if bytes.count - at >= size { return first + at }
            }
        }
        throw Failure(
            "no-slack", "no executable mapping has \(size) unused bytes for a call.", at: "process \(process)",
            remedy: "Restart the process with the fixed package.")
    }

    private static func run(
        _ calls: [SystemCall], stub: Range<RuntimeAddress>, _ process: ProcessHandle, _ memory: ProcessMemory, _ seccomp: ProcessStatus.Seccomp
    ) throws {
        let end = fother_now() + stubTimeout.nanoseconds
        _ = fother_alarm(stubTimeout.nanoseconds)
        for thread in try choose(process) {
            guard try seize(thread.value, process.id, seccomp) else { continue }
            _ = fother_interrupt(thread.value)
            guard let (signal, registers) = try stop(thread.value, process.id, end) else { continue }
            if try send(thread.value, signal, registers, calls, stub, process.id, memory, end) { return }
        }
        throw Failure("process-gone", "no thread could make the call.", at: "process \(process.id)")
    }

    /// Threads in the order of preference.
    private static func choose(_ process: ProcessHandle) throws -> [ThreadID] {
        let threads = try process.threads()
        if threads.count == 1 { return threads }
        var patient: [ThreadID] = [], others: [ThreadID] = []
        for thread in threads.prefix(256) {
            switch try? process.activity(of: thread) {
            case .inSystemCall(let number) where patientCalls.contains(number): patient.append(thread)
            case .running: patient.insert(thread, at: 0)
            default: others.append(thread)
            }
        }
        return patient + others
    }

    private static func stop(_ thread: Int32, _ process: ProcessID, _ end: Int64) throws(Failure) -> (Int32, user_regs_struct)? {
        var status: Int32 = 0
        while true {
            let n = unsafe fother_waitpid(thread, &status, __WALL)
            if n == -EINTR {
                guard fother_now() < end else { throw Failure("stop-timeout", "thread \(thread) did not stop in time.", at: "process \(process)", remedy: "Try again later.") }
                continue
            }
            guard n == thread, fother_decode_status(status).kind == 2 else { return nil }
            break
        }
        var registers = user_regs_struct()
        guard unsafe fother_get_registers(thread, &registers) == 0 else { return nil }
        let what = fother_decode_status(status)
        return (what.event != 0 ? 0 : Int32(what.value), registers)
    }

    /// True when the thread made every call; false when it ended first.
    private static func send(
        _ thread: Int32, _ firstSignal: Int32, _ before: user_regs_struct, _ calls: [SystemCall], _ stub: Range<RuntimeAddress>,
        _ process: ProcessID, _ memory: ProcessMemory, _ end: Int64
    ) throws -> Bool {
        var registers = before
        if Int64(bitPattern: UInt64(registers.rax)) == Int64(-EINTR), Int64(bitPattern: UInt64(registers.orig_rax)) >= 0 {
            registers.rax = .init(UInt64(bitPattern: -514))
        }
        let stack = RuntimeAddress(UInt64(registers.rsp) &- 136)
        var word: [UInt8] = []
        word.append64(UInt64(registers.rip))
        do { try memory.write(word, at: stack) } catch {
            _ = fother_detach(thread, firstSignal)
            throw Failure("no-stack", "thread \(thread) has no room on its stack.", at: "process \(process)", remedy: "Try again.")
        }
        registers.rsp = .init(stack.value)
        registers.rip = .init((stub.lowerBound + CallStub.entry).value)
        guard unsafe fother_set_registers(thread, &registers) == 0 else {
            _ = fother_detach(thread, firstSignal)
            throw Failure("call-failed", "the thread's registers cannot be set.", at: "process \(process) thread \(thread)")
        }
        // From here on the thread finishes by itself, whatever happens to us.
        var signal = firstSignal
        var next = 0
        var isInside = false
        for _ in 0..<100_000 {
            guard fother_continue_to_syscall(thread, signal) == 0 else { return false }
            signal = 0
            var status: Int32 = 0
            while true {
                let n = unsafe fother_waitpid(thread, &status, __WALL)
                if n == -EINTR {
                    guard fother_now() < end else {
                        throw Failure("call-timeout", "the thread did not come to the call in time.", at: "process \(process) thread \(thread)", remedy: "It may still make it; try again.")
                    }
                    continue
                }
                guard n == thread else { return false }
                break
            }
            let what = fother_decode_status(status)
            guard what.kind == 2 else { return false }
            if what.event != 0 { continue }
            guard what.value == SIGTRAP | 0x80 else {
                signal = Int32(what.value)
                continue
            }
            var now = user_regs_struct()
            guard unsafe fother_get_registers(thread, &now) == 0 else { return false }
            // A signal handler's own calls are none of ours.
            guard stub.contains(RuntimeAddress(UInt64(now.rip))) else { continue }
            if !isInside {
                isInside = true
                continue
            }
            isInside = false
            let result = Int64(bitPattern: UInt64(now.rax))
            let call = calls[next]
            if result < 0 && result > -4096 {
                _ = fother_detach(thread, 0)
                throw failed(call, Errno(result), process)
            }
            if case .mapAnonymous(let wanted, _) = call, UInt64(bitPattern: result) != wanted.value {
                _ = fother_detach(thread, 0)
                throw Failure(
                    "call-failed", "mmap gave \(hex(UInt64(bitPattern: result))) instead of \(wanted): this kernel lacks MAP_FIXED_NOREPLACE.",
                    at: "process \(process)", remedy: "Linux 4.17 or newer is needed.")
            }
            next += 1
            if next == calls.count {
                _ = fother_detach(thread, 0)
                return true
            }
        }
        _ = fother_detach(thread, 0)
        throw Failure("call-timeout", "the thread makes too many other calls.", at: "process \(process) thread \(thread)", remedy: "Try again.")
    }

    private static func failed(_ call: SystemCall, _ error: Errno, _ process: ProcessID) -> Failure {
        let remedy =
            switch error.code {
            case ENOMEM: "The process is at a memory or mapping limit (RLIMIT_AS, vm.max_map_count, its cgroup); raise it and try again."
            case EPERM, EACCES: "A security policy of the process forbids it; restart the process with the fixed package."
            case EEXIST: "Another mapping took the place; try again."
            default: "Nothing was changed."
            }
        return Failure("call-failed", "\(call.name) in the process failed: \(error.text).", at: "process \(process)", remedy: remedy)
    }
}
