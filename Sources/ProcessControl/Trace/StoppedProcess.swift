// All threads of one process, standing still; and the certainty that they go on.

import CLinux
import ELF
import Glibc

/// One thread at rest.
public struct StoppedThread: Sendable {
    public let id: ThreadID
    var registers: Registers
    /// Taken from the thread's queue and not delivered yet; it gets it when it is released.
    var pendingSignal: Int32 = 0
    /// The kernel made it to work for io_uring or vhost: it has no stack and never runs code of the process.
    public internal(set) var isKernelWorker = false

    public var instructionPointer: RuntimeAddress { RuntimeAddress(registers.rip) }
    public var stackPointer: RuntimeAddress { RuntimeAddress(registers.rsp) }
    /// The fs base: glibc and musl keep the thread's control block there, on top of the stack they gave it.
    public var threadPointer: RuntimeAddress { RuntimeAddress(registers.fs_base) }
    /// The number of the system call that it waited in when it was stopped; nil when it was doing something.
    public var waitsIn: Int? {
        let number = Int64(bitPattern: registers.orig_rax)
        return number >= 0 && SystemCallRestart.isInterrupted(Int64(bitPattern: registers.rax)) ? Int(number) : nil
    }
    /// By DWARF number, 0 to 16: rax rdx rcx rbx rsi rdi rbp rsp r8…r15 rip.
    public var dwarfRegisters: [UInt64] {
        let r = registers
        return [
            r.rax, r.rdx, r.rcx, r.rbx, r.rsi, r.rdi, r.rbp, r.rsp, r.r8, r.r9, r.r10, r.r11, r.r12, r.r13, r.r14, r.r15, r.rip,
        ]
    }
    /// Every general register, in no particular order.
    public var generalRegisters: [UInt64] {
        let r = registers
        return [
            r.rax, r.rbx, r.rcx, r.rdx, r.rsi, r.rdi, r.rbp, r.rsp, r.r8, r.r9, r.r10, r.r11, r.r12, r.r13, r.r14, r.r15,
            r.rip, r.orig_rax, r.fs_base, r.gs_base,
        ]
    }
}

/// A process whose threads are stopped. Destroying it releases them; if even that is not reached, the end of the
/// tracer's thread does.
public struct StoppedProcess: ~Copyable {
    public let process: ProcessHandle
    /// Every thread that exists and can run.
    public private(set) var threads: [StoppedThread] = []

    private let memory: ProcessMemory
    private let task: Descriptor
    /// The one thread that is stopped; nil for all.
    private let only: ThreadID?
    private var known: Set<ThreadID> = []
    private var underFilter: Set<ThreadID> = []
    private var uninterruptible: Set<ThreadID> = []
    private var running: Set<ThreadID> = []
    private var stoppedAt: Int64 = 0

    enum Limits {
        /// Rounds of looking for threads that appeared while others were being stopped. Each round stops everything
        /// that could have created more, so a second round rarely finds any.
        static let roundsMax = 64
        static let threadsMax = 100_000
        /// How long those that are on their way to a stop are waited for when the stop has failed.
        static let graceNanoseconds: Int64 = 100_000_000
        /// How long those that sleep are waited for before the others are stopped as well, and for each of them: about what they
        /// take where a processor is free.
        static let earlyNanoseconds: Int64 = 200_000
        static let earlyNanosecondsEach: Int64 = 17_000
    }

    /// Prepares; nothing is attached yet.
    static func prepare(_ process: ProcessHandle, only: ThreadID? = nil) throws(Failure) -> StoppedProcess {
        let status = try process.status()
        guard !status.isKernelThread else { throw Failure("kernel-thread", "it is a kernel thread.", at: "\(process)") }
        let memory = try process.memory()
        let task: Descriptor
        do { task = try Descriptor(opening: "task", in: process.directory, flags: O_RDONLY | O_DIRECTORY) } catch {
            throw processFailure(error, process.id, "task")
        }
        return StoppedProcess(process, memory, task, only)
    }
    // A type with a deinit cannot fail half-way through its init.
    private init(_ process: ProcessHandle, _ memory: ProcessMemory, _ task: Descriptor, _ only: ThreadID?) {
        self.process = process
        self.memory = memory
        self.task = task
        self.only = only
    }

    deinit { Self.detach(threads, since: stoppedAt) }

    /// Stops every thread. Throws `already-traced`, `stop-timeout`, `not-permitted`, `kernel-thread`,
    /// `process-gone`; whatever was stopped by then goes on when `self` is destroyed and the tracer's thread ends.
    mutating func stop(within timeout: Duration, _ observer: (StoppedThread) -> Void = { _ in }) throws(Failure) {
        let deadline = fother_now() + timeout.nanoseconds
        // Attaching does not stop anybody. Until no new thread appears: what is attached late is stopped late.
        var waiting: [ThreadID] = []
        for _ in 0..<Limits.roundsMax {
            let new = try newThreads()
            if new.isEmpty { break }
            for thread in new where try seize(thread, of: process, status: note(thread)) { waiting.append(thread) }
        }
        try waitForUninterruptible(waiting, deadline)
        threads.reserveCapacity(waiting.count + 64)
        guard !waiting.isEmpty else { throw gone }
        _ = fother_alarm(timeout.nanoseconds)
        _ = fother_set_realtime(1)
        stoppedAt = fother_now()
        for _ in 0..<Limits.roundsMax {
            // Those that sleep miss nothing while the others are still at work: they are stopped first, and released last. But
            // where many want to run, sleepers come to their stop late; no later than all do when all are stopped at once.
            let early = waiting.filter { !running.contains($0) }
            waiting = waiting.filter(running.contains)
            // An alarm is set before anybody is interrupted: setting one takes about as long as a thread takes to stop.
            var late: [ThreadID] = []
            if !early.isEmpty {
                let patience = min(deadline, fother_now() + Limits.earlyNanoseconds + Int64(early.count) * Limits.earlyNanosecondsEach)
                _ = fother_alarm(max(patience - fother_now(), 1))
                for thread in early { _ = fother_interrupt(thread.value) }
                late = Array(early.drop { fother_now() < patience && collect($0, until: patience, observer) })
                _ = fother_alarm(max(deadline - fother_now(), 1))
            }
            for thread in waiting { _ = fother_interrupt(thread.value) }
            waiting = late + waiting
            if let slow = waiting.first(where: { fother_now() >= deadline || !collect($0, until: deadline, observer) }) {
                collectLate(waiting.drop { $0 != slow })
                throw timedOut(slow)
            }
            waiting = []
            if isComplete { return }
            for thread in try newThreads() where try seize(thread, of: process, status: note(thread)) {
                waiting.append(thread)
            }
            if waiting.isEmpty {
                if threads.isEmpty { throw gone }
                return
            }
        }
        throw Failure(
            "stop-timeout", "the process creates threads faster than they can be stopped.", at: "\(process)",
            remedy: "Try again when it is less busy.")
    }

    /// A thread that sleeps uninterruptibly would keep the others waiting, stopped. So they run on until it comes back.
    private mutating func waitForUninterruptible(_ threads: [ThreadID], _ deadline: Int64) throws(Failure) {
        for thread in threads where uninterruptible.contains(thread) {
            while let status = try? process.status(of: thread), status.state == .uninterruptible {
                guard fother_now() < deadline else { throw timedOut(thread) }
                _ = fother_sleep(200_000)
            }
        }
    }

    /// Lets everything go on and returns for how long it stood still. Calling it again does nothing.
    mutating func release() -> Duration {
        let end = Self.detach(threads, since: stoppedAt)
        let pause = stoppedAt == 0 ? 0 : end - stoppedAt
        threads = []
        stoppedAt = 0
        return .nanoseconds(pause)
    }

    /// For how long it has stood still.
    public var elapsed: Duration { .nanoseconds(stoppedAt == 0 ? 0 : fother_now() - stoppedAt) }

    /// Every register a pointer can hide in: general, x87 and vector.
    public func registerWords(of thread: StoppedThread) -> [UInt64] {
        thread.generalRegisters + vectorWords(of: thread.id)
    }

    @discardableResult
    private static func detach(_ threads: [StoppedThread], since stoppedAt: Int64) -> Int64 {
        for thread in threads.reversed() { _ = fother_detach(thread.id.value, thread.pendingSignal) }
        let end = fother_now()
        if stoppedAt != 0 {
            _ = fother_set_realtime(0)
            _ = fother_alarm(0)
        }
        return end
    }

    private mutating func newThreads() throws(Failure) -> [ThreadID] {
        let listed: [Int32]
        if let only { return known.insert(only).inserted ? [only] : [] }
        do { listed = try task.listNumbers() } catch { throw processFailure(error, process.id, "task") }
        var new: [ThreadID] = []
        for number in listed where known.insert(ThreadID(number)).inserted { new.append(ThreadID(number)) }
        guard known.count <= Limits.threadsMax else {
            throw Failure("stop-timeout", "it has more than \(Limits.threadsMax) threads.", at: "\(process)")
        }
        return new
    }

    /// Whether there are no more threads than those that stand still; one of these cannot end without all. The kernel tells
    /// their number in the links of the directory, and that without listing them.
    private var isComplete: Bool { only == nil && !threads.isEmpty && (try? task.linkCount()) == 2 + threads.count }

    /// Notes whether a seccomp filter judges the thread's system calls, and whether it can be interrupted now.
    private mutating func note(_ thread: ThreadID) -> ProcessStatus? {
        let status = try? process.status(of: thread)
        if status?.state == .uninterruptible { uninterruptible.insert(thread) }
        if status?.state == .running { running.insert(thread) }
        if status?.seccomp != ProcessStatus.Seccomp.none { underFilter.insert(thread) }
        return status
    }

    /// Waits for a thread that was interrupted, and notes it unless it has ended. False when the time is up.
    private mutating func collect(_ thread: ThreadID, until deadline: Int64, _ observer: (StoppedThread) -> Void) -> Bool {
        var signal: Int32 = 0
        waiting: while true {
            switch waitForStop(thread) {
            case .ended: return true
            case .alarm: if fother_now() >= deadline { return false }
            case .interrupted, .systemCall: break waiting
            case .signal(let number):
                signal = number
                break waiting
            }
        }
        // Killed in the meantime: there is nothing left to stop, and it cannot run user code any more.
        guard var registers = registers(of: thread) else { return true }
        if let result = SystemCallRestart.correctedResult(
            Int64(bitPattern: registers.rax), of: Int64(bitPattern: registers.orig_rax), underFilter: underFilter.contains(thread)),
            isBehindSystemCall(registers)
        {
            registers.rax = UInt64(bitPattern: result)
            _ = setRegisters(registers, of: thread)
        }
        // The kernel gives its own workers no instruction pointer; that alone would be no proof.
        let isWorker = registers.rip == 0 && process.isKernelWorker(thread)
        let stopped = StoppedThread(id: thread, registers: registers, pendingSignal: signal, isKernelWorker: isWorker)
        threads.append(stopped)
        observer(stopped)
        return true
    }

    /// After a failure: those that were interrupted already, so that none of them sees its call fail for it.
    private mutating func collectLate(_ interrupted: ArraySlice<ThreadID>) {
        let deadline = fother_now() + Limits.graceNanoseconds
        _ = fother_alarm(Limits.graceNanoseconds)
        for thread in interrupted where !collect(thread, until: deadline, { _ in }) { continue }
    }

    private func isBehindSystemCall(_ registers: Registers) -> Bool {
        (try? memory.read(at: RuntimeAddress(registers.rip) + -2, count: 2)) == [0x0f, 0x05]
    }

    private func timedOut(_ thread: ThreadID) -> Failure {
        let state = (try? process.status(of: thread))?.state
        let what =
            state == .uninterruptible
            ? "it sleeps uninterruptibly: it waits for a device, a network file system, or for a child made by vfork to run a program"
            : "it is in state \(state.map { "\($0)" } ?? "unknown")"
        return Failure(
            "stop-timeout", "thread \(thread) did not stop in time: \(what).", at: "\(process)",
            remedy: "Nothing was changed; try again later.")
    }
    private var gone: Failure { Failure("process-gone", "the process has ended.", at: "\(process)") }
}

/// Attaches to a thread without stopping it. False when it has ended. Filters are suspended where that is possible:
/// who depends on it checks `status`.
func seize(_ thread: ThreadID, of process: ProcessHandle, status: ProcessStatus?) throws(Failure) -> Bool {
    var error = fother_seize(thread.value, FOTHER_SUSPEND_SECCOMP)
    if error == -EPERM || error == -EINVAL {
        // This process may have a filter itself, or the kernel cannot suspend: stopping alone works without.
        error = fother_seize(thread.value, 0)
    }
    switch error {
    case 0: return true
    case -ESRCH: return false
    case -EPERM:
        var status = status
        do { status = try process.status(of: thread) } catch {
            // It was ending when it was asked for, and is no more.
            if error.saysProcessIsGone { return false }
        }
        if status?.isEnded ?? true { return false }
        if status?.isKernelThread == true {
            throw Failure("kernel-thread", "it is a kernel thread.", at: "\(process)")
        }
        if let tracer = status?.tracer {
            let name = (try? ProcessHandle(tracer).status().name) ?? "?"
            throw Failure(
                "already-traced", "process \(tracer) (\(name)) is tracing it; a process can have one tracer.", at: "\(process)",
                remedy: "Let that debugger or tracer detach, then try again.")
        }
        throw Failure(
            "not-permitted", "the kernel does not permit to trace it.", at: "\(process)",
            remedy: "Run as root with CAP_SYS_PTRACE; a security module (Yama ptrace_scope, SELinux, AppArmor) may forbid it too.")
    default:
        throw Failure("not-permitted", "attaching failed: \(Errno(error).text).", at: "\(process)")
    }
}

extension Duration {
    var nanoseconds: Int64 {
        let (seconds, attoseconds) = components
        return min(max(seconds, 0), 1 << 32) * 1_000_000_000 + attoseconds / 1_000_000_000
    }
}
