// Sends one thread of a process through a piece of code that brings it back by itself: see RegistrationStub.

import CLinux
import ELF
import Glibc

/// Code in the target that a thread can be sent through. It takes the address to go back to from the top of the stack, and
/// has a second entry two bytes before the first, as a call stub has.
public struct Detour: Sendable {
    public var entry: RuntimeAddress
    /// The instruction pointer behind its last system call: from there on nothing can fail.
    public var end: RuntimeAddress
    /// What the thread's stack pointer is lowered by; the address to go back to is written at the new top.
    public var stackBytes: Int
    /// Free stack that it needs below that.
    public var stackRoomBytes: Int

    public init(entry: RuntimeAddress, end: RuntimeAddress, stackBytes: Int, stackRoomBytes: Int) {
        self.entry = entry
        self.end = end
        self.stackBytes = stackBytes
        self.stackRoomBytes = stackRoomBytes
    }
}

/// A thread that may be sent, at rest.
public struct DetourCandidate: Sendable {
    public var thread: StoppedThread
    /// It is at the end of this system call, which will go on or fail when the thread does; nil when it was running.
    public var systemCall: Int?
}

extension Tracer {
    /// Sends the first thread through `detour` that `refuse` has nothing against, and waits until it is behind the detour's
    /// last system call. Only that thread is stopped, for as long as it takes to look at it. The tracer may die at any moment:
    /// a thread that was sent finds its way home.
    ///
    /// Failures: `no-thread-for-call` with the last reason, `call-timeout` (it was sent, and is not back yet), `seccomp`,
    /// `shadow-stack`, and those of every operation.
    public func send(
        through detour: Detour, in process: ProcessHandle, maps: [Mapping], timeout: Duration,
        unless refuse: (DetourCandidate) -> String?
    ) throws {
        guard try !process.status().hasShadowStack else {
            throw Failure(
                "shadow-stack", "it runs with a shadow stack, which forbids to borrow a thread.", at: "\(process)",
                remedy: "Restart it with the fixed package.")
        }
        let memory = try process.memory()
        let deadline = fother_now() + timeout.nanoseconds
        var reason: String?
        var round = 0
        while true {
            let candidates = try process.threads().prefix(CallSite.candidatesMax).map {
                (rank: CallSite.rank((try? process.activity(of: $0)) ?? .unknown), thread: $0)
            }
            for (_, thread) in candidates.sorted(by: { ($0.rank, $0.thread) < ($1.rank, $1.thread) }) {
                let answer = try onOwnThread { try Self.send(thread, detour, process, memory, maps, deadline, refuse) }
                guard let why = answer else {
                    // It makes no more system calls in there: whoever waits in one again is out.
                    for _ in 0..<Self.homecomingRounds {
                        if case .inSystemCall? = try? process.activity(of: thread) { break }
                        _ = fother_sleep(100_000)
                    }
                    return
                }
                // At the deadline nothing was seen any more.
                if fother_now() >= deadline, reason != nil { break }
                reason = why
            }
            round += 1
            _ = try process.livingThread()  // or it has ended
            if fother_now() >= deadline {
                throw Failure(
                    "no-thread-for-call", "no thread was found that can make a call now: \(reason ?? "it has none").", at: "\(process)",
                    remedy: "Try again later.")
            }
            rest(round)
        }
    }

    /// A thread that is sent is mostly one that waits, and waits again at once; another may take its time.
    private static let homecomingRounds = 50

    /// Nil when the thread has been through it; else why it was not sent.
    private static func send(
        _ thread: ThreadID, _ detour: Detour, _ process: ProcessHandle, _ memory: ProcessMemory, _ maps: [Mapping], _ deadline: Int64,
        _ refuse: (DetourCandidate) -> String?
    ) throws -> String? {
        let status = try? process.status(of: thread)
        guard status?.seccomp != .strict else { return "thread \(thread) may make no system calls" }
        var error = fother_seize(thread.value, FOTHER_SUSPEND_SECCOMP)
        if error == -EPERM || error == -EINVAL, status?.seccomp == ProcessStatus.Seccomp.none { error = fother_seize(thread.value, 0) }
        if error != 0 {
            if status?.seccomp != ProcessStatus.Seccomp.none, status?.isEnded == false, status?.tracer == nil {
                return "thread \(thread) has a seccomp filter that cannot be suspended from here"
            }
            // Says why; what it attached ends with this thread.
            _ = try seize(thread, of: process, status: status)
            return "thread \(thread) cannot be attached"
        }
        _ = fother_alarm(max(deadline - fother_now(), 1))
        defer { _ = fother_alarm(0) }
        _ = fother_interrupt(thread.value)
        stopping: while true {
            switch waitForStop(thread) {
            case .ended: return "thread \(thread) has ended"
            case .alarm:
                if fother_now() >= deadline { return "thread \(thread) did not stop in time" }
            case .signal(let signal):
                _ = fother_detach(thread.value, signal)
                return "thread \(thread) is handling signals"
            case .interrupted, .systemCall: break stopping
            }
        }
        defer { _ = fother_detach(thread.value, 0) }
        guard var original = registers(of: thread) else { return "thread \(thread) has ended" }
        let isAtCall =
            Int64(bitPattern: original.orig_rax) >= 0
            && (try? memory.read(at: RuntimeAddress(original.rip) + -2, count: 2)) == [0x0f, 0x05]
        if isAtCall,
            let result = SystemCallRestart.correctedResult(
                Int64(bitPattern: original.rax), of: Int64(bitPattern: original.orig_rax),
                underFilter: status?.seccomp != ProcessStatus.Seccomp.none)
        {
            original.rax = UInt64(bitPattern: result)
            _ = setRegisters(original, of: thread)
        }
        guard !vectorWords(of: thread).isEmpty else { return "this processor cannot save its vector registers at once" }
        guard hasRoom(original, maps, detour) else { return "thread \(thread) stands on a stack or in code that cannot be used" }
        let candidate = DetourCandidate(
            thread: StoppedThread(id: thread, registers: original), systemCall: isAtCall ? Int(original.orig_rax) : nil)
        if let why = refuse(candidate) { return "thread \(thread) \(why)" }

        var sent = original
        sent.rsp = original.rsp &- UInt64(detour.stackBytes)
        sent.rip = detour.entry.value
        let home = (0..<8).map { UInt8(truncatingIfNeeded: original.rip >> UInt64(8 * $0)) }
        guard (try? memory.write(home, at: RuntimeAddress(sent.rsp))) != nil, setRegisters(sent, of: thread) else {
            return "thread \(thread) has ended"
        }
        // From here on the thread finds home by itself, whatever happens to us.
        try follow(thread, detour, process, deadline)
        return nil
    }

    private static func follow(_ thread: ThreadID, _ detour: Detour, _ process: ProcessHandle, _ deadline: Int64) throws {
        var signal: Int32 = 0
        var entered = false
        while true {
            _ = fother_continue_to_syscall(thread.value, signal)
            signal = 0
            switch waitForStop(thread) {
            case .ended: throw processFailure(Errno(-ESRCH), process.id, "")
            case .alarm:
                guard fother_now() >= deadline else { continue }
                // A running thread must be stopped to be let go; if it does not stop, the end of this thread lets it go.
                throw Failure(
                    "call-timeout", "thread \(thread) was sent to make a call and is not back in time.", at: "\(process)",
                    remedy: "It is harmless: the call is made when the thread can go on. Try again later.")
            case .interrupted: continue
            case .signal(let number): signal = number
            case .systemCall:
                guard let now = registers(of: thread) else { throw processFailure(Errno(-ESRCH), process.id, "") }
                guard now.rip == detour.end.value else { continue }
                if entered { return }
                entered = true
            }
        }
    }

    /// It must run 64-bit code on the stack that it was given: nothing is known of the space below others.
    private static func hasRoom(_ registers: Registers, _ maps: [Mapping], _ detour: Detour) -> Bool {
        let sp = RuntimeAddress(registers.rsp)
        guard registers.cs == 0x33, let stack = maps.mapping(at: sp), stack.permissions.isSuperset(of: [.read, .write]),
            sp - stack.range.lowerBound >= detour.stackBytes + detour.stackRoomBytes
        else { return false }
        return stack.path == "[stack]" || stack.range.contains(RuntimeAddress(registers.fs_base))
    }
}
