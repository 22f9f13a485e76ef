// Stops a process and lets it go. ptrace belongs to one thread, so every stop happens inside one synchronous call on a
// thread made for it: when that thread ends, for whatever reason, the kernel releases everything it held.

import CLinux
import ELF
import Glibc

/// One thread of a stopped process.
public struct StoppedThread: Sendable {
    public let id: ThreadID
    /// All general-purpose registers.
    public internal(set) var registers: user_regs_struct
    /// A signal that arrived while it was being stopped; it is delivered at the release.
    var signal: Int32

    public var instructionPointer: RuntimeAddress { RuntimeAddress(UInt64(registers.rip)) }
    public var stackPointer: RuntimeAddress { RuntimeAddress(UInt64(registers.rsp)) }
    /// Base of fs: on glibc the thread control block, at the top of a pthread's stack.
    public var threadPointer: RuntimeAddress { RuntimeAddress(UInt64(registers.fs_base)) }
    /// By DWARF number, 0 to 16: rax rdx rcx rbx rsi rdi rbp rsp r8…r15 rip.
    public var dwarfRegisters: [UInt64] {
        [registers.rax, registers.rdx, registers.rcx, registers.rbx, registers.rsi, registers.rdi, registers.rbp, registers.rsp,
         registers.r8, registers.r9, registers.r10, registers.r11, registers.r12, registers.r13, registers.r14, registers.r15, registers.rip]
            .map { UInt64($0) }
    }
    /// The values a pointer can hide in.
    public var values: [UInt64] {
        [registers.rax, registers.rbx, registers.rcx, registers.rdx, registers.rsi, registers.rdi, registers.rbp, registers.rsp,
         registers.r8, registers.r9, registers.r10, registers.r11, registers.r12, registers.r13, registers.r14, registers.r15, registers.rip]
            .map { UInt64($0) }
    }
}

/// All threads of a process, standing still. Ends with every one of them running again, on every path.
public struct StoppedProcess: ~Copyable {
    public let process: ProcessID
    public fileprivate(set) var threads: [StoppedThread] = []
    /// Seized and not yet known to stand still.
    fileprivate var pending: [Int32] = []

    fileprivate init(_ process: ProcessID) { self.process = process }

    deinit { for thread in threads { _ = fother_detach(thread.id.value, thread.signal) } }
}

/// What a stop gave, and how long it lasted.
public struct StopResult<Value> {
    public var value: Value
    /// From before the first thread was interrupted to after the last one was released.
    public var pause: Duration
    public var threadCount: Int
}

public struct Tracer: Sendable {
    /// Threads beyond this are not stopped: the process is refused.
    public static let threadsMax = 32_768

    public init() {}

    /// Stops every thread of `process`, runs `body`, releases them. Everything slow belongs before the call.
    ///
    /// A system call that the stop interrupts goes on as if nothing had happened; a real signal still interrupts it.
    /// Failures: `process-gone`, `already-traced`, `not-permitted`, `seccomp`, `stop-timeout`, and what `body` throws.
    public func withStopped<Value>(
        _ process: ProcessHandle, timeout: Duration, _ body: (borrowing StoppedProcess) throws -> Value
    ) throws -> StopResult<Value> {
        let status = try process.status()
        try Self.refuseUntouchable(status, process.id)
        return try onOwnThread {
            let end = fother_now() + timeout.nanoseconds
            var started: Int64 = 0
            var count = 0
            let value: Value
            do {
                var stopped = StoppedProcess(process.id)
                try Self.seizeAll(&stopped, process, status.seccomp)
                // Being descheduled while others stand still is what makes pauses long.
                _ = fother_set_realtime(1)
                _ = fother_alarm(timeout.nanoseconds)
                started = fother_now()
                try Self.stopAll(&stopped, process, status.seccomp, end)
                count = stopped.threads.count
                value = try body(stopped)
            }
            let pause = fother_now() - started
            _ = fother_set_realtime(0)
            _ = fother_alarm(0)
            return StopResult(value: value, pause: .nanoseconds(pause), threadCount: count)
        }
    }

    /// What stopping costs without doing anything: seize, interrupt, read registers, detach.
    public func measureFloor(_ process: ProcessHandle) throws -> Duration {
        try withStopped(process, timeout: .seconds(1)) { _ in }.pause
    }

    /// Lets the target run between two attempts, longer the more there were.
    public func rest(_ attempts: Int) { _ = fother_sleep(Int64(min(20, 1 + attempts)) * 500_000) }

    // MARK: Stopping

    static func refuseUntouchable(_ status: ProcessStatus, _ process: ProcessID) throws(Failure) {
        if status.isEnded { throw Failure("process-gone", "the process does not exist any more.", at: "process \(process)") }
        if status.isKernelThread { throw Failure("kernel-thread", "it is a kernel thread.", at: "process \(process)") }
        if let tracer = status.tracer {
            throw Failure(
                "already-traced", "process \(tracer) traces it.", at: "process \(process)",
                remedy: "End the debugger or tracer there, then try again.")
        }
    }

    /// SEIZE does not stop anything.
    private static func seizeAll(_ stopped: inout StoppedProcess, _ process: ProcessHandle, _ seccomp: ProcessStatus.Seccomp) throws(Failure) {
        let known = Set(stopped.threads.map(\.id.value) + stopped.pending)
        let threads = try process.threads()
        guard threads.count <= threadsMax else {
            throw Failure("limit-exceeded", "it has more than \(threadsMax) threads.", at: "process \(process.id)")
        }
        for thread in threads where !known.contains(thread.value) {
            if try seize(thread.value, process.id, seccomp) { stopped.pending.append(thread.value) }
        }
    }

    /// False when the thread is gone.
    static func seize(_ thread: Int32, _ process: ProcessID, _ seccomp: ProcessStatus.Seccomp) throws(Failure) -> Bool {
        var error = fother_seize(thread, FOTHER_SUSPEND_SECCOMP)
        if error == -EINVAL || error == -EPERM, seccomp == .none { error = fother_seize(thread, 0) }
        switch error {
        case 0: return true
        case -ESRCH: return false
        case -EPERM, -EINVAL:
            // A thread that is dying is refused like a foreign one.
            if let handle = try? ProcessHandle(process), let status = try? handle.status(of: ThreadID(thread)) {
                if status.isEnded { return false }
                if status.tracer != nil { try refuseUntouchable(status, process) }
            }
            if seccomp != .none {
                throw Failure(
                    "seccomp", "its system calls are filtered, and suspending the filter is not permitted.", at: "process \(process)",
                    remedy: "Run fother as root outside any sandbox: a tracer with a seccomp filter of its own may not do this.")
            }
            throw Failure(
                "not-permitted", "attaching is not permitted.", at: "process \(process)",
                remedy: "Run as root with CAP_SYS_PTRACE; Yama's ptrace_scope 3 forbids it altogether.")
        default:
            throw Failure("attach-failed", "attaching failed: \(Errno(error).text).", at: "process \(process) thread \(thread)")
        }
    }

    private static func stopAll(
        _ stopped: inout StoppedProcess, _ process: ProcessHandle, _ seccomp: ProcessStatus.Seccomp, _ end: Int64
    ) throws(Failure) {
        while true {
            for thread in stopped.pending { _ = fother_interrupt(thread) }
            for thread in stopped.pending {
                guard let signal = try waitForStop(thread, process.id, end) else { continue }
                var registers = user_regs_struct()
                guard unsafe fother_get_registers(thread, &registers) == 0 else { continue }
                repairInterruptedCall(thread, &registers)
                stopped.threads.append(StoppedThread(id: ThreadID(thread), registers: registers, signal: signal))
            }
            stopped.pending = []
            // Threads made while others were still running; those that stand still make none.
            try seizeAll(&stopped, process, seccomp)
            if stopped.pending.isEmpty { break }
        }
        guard !stopped.threads.isEmpty else {
            throw Failure("process-gone", "the process ended while it was being stopped.", at: "process \(process.id)")
        }
    }

    /// The signal to deliver at the release (0 for none), or nil when the thread is gone.
    private static func waitForStop(_ thread: Int32, _ process: ProcessID, _ end: Int64) throws(Failure) -> Int32? {
        while true {
            var status: Int32 = 0
            let n = unsafe fother_waitpid(thread, &status, __WALL)
            if n == -EINTR {
                guard fother_now() < end else {
                    throw Failure(
                        "stop-timeout", "thread \(thread) did not stop in time.", at: "process \(process)",
                        remedy: "It waits inside the kernel (a vfork parent, a dead network file system); try again later.")
                }
                continue
            }
            guard n == thread else { return nil }
            let what = fother_decode_status(status)
            guard what.kind == 2 else { return nil }
            // An event is our interruption, or the stop that SIGSTOP already caused; anything else is a signal on its way.
            return what.event != 0 ? 0 : Int32(what.value)
        }
    }

    /// Some calls return EINTR for a mere stop. Told "restart unless a handler ran", the kernel decides rightly: nothing
    /// is seen without a signal, and a real signal still interrupts.
    private static func repairInterruptedCall(_ thread: Int32, _ registers: inout user_regs_struct) {
        guard Int64(bitPattern: UInt64(registers.rax)) == Int64(-EINTR), Int64(bitPattern: UInt64(registers.orig_rax)) >= 0 else { return }
        registers.rax = .init(UInt64(bitPattern: -514))
        _ = unsafe fother_set_registers(thread, &registers)
    }
}

extension Duration {
    var nanoseconds: Int64 { components.seconds &* 1_000_000_000 &+ components.attoseconds / 1_000_000_000 }
}

/// Runs `body` on a new thread and waits for it.
func onOwnThread<Value>(_ body: () throws -> Value) throws -> Value {
    var result: Result<Value, any Error>?
    try withoutActuallyEscaping(body) { body in
        let job = Job { result = Result { try body() } }
        let error = unsafe fother_on_own_thread(
            { raw in if let raw = unsafe raw { unsafe Unmanaged<Job>.fromOpaque(raw).takeUnretainedValue().run() } },
            Unmanaged.passUnretained(job).toOpaque())
        guard error == 0 else { throw Failure("no-thread", "no thread can be started: \(Errno(error).text).") }
        withExtendedLifetime(job) {}
    }
    guard let result else { throw Failure("no-thread", "the tracer's thread did not run.") }
    return try result.get()
}

private final class Job {
    let run: () -> Void
    init(_ run: @escaping () -> Void) { self.run = run }
}
