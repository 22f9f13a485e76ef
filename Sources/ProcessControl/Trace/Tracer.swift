// Stops processes and makes calls inside them. ptrace belongs to one thread, so every operation here runs on a thread
// of its own from beginning to end; when that thread ends the kernel releases whatever it held.

import CLinux
import ELF
import Glibc

/// What came out of a stop, and what it cost the process.
public struct StopResult<Value> {
    public var value: Value
    /// From the first interrupt to the last release: no thread of the process stood still for longer.
    public var pause: Duration
    public var threadCount: Int
}

/// Reaches into processes. It has no state; operations on different processes may run at the same time on different
/// threads.
///
/// Failures of every operation: `process-gone`, `process-unreadable`, `already-traced`, `not-permitted`,
/// `kernel-thread`, `stop-timeout`.
public struct Tracer: Sendable {
    public init() {}

    /// Stops every thread of `process`, runs `body`, and releases them, whether `body` returns or throws. `timeout`
    /// bounds the stopping, not `body`. A process that was stopped by job control (SIGSTOP) stays so; signals that
    /// arrive meanwhile are delivered afterwards; system calls that were interrupted are continued by the kernel.
    ///
    /// `observer` is given each thread as soon as it stands still, while others may still run. `helper` runs on another thread
    /// meanwhile, and must return soon after `body` began or `closing` was called; `closing` is called when anything failed.
    public func withStopped<Value>(
        _ process: ProcessHandle, timeout: Duration, helper: (@Sendable () -> Void)? = nil, closing: () -> Void = {},
        observer: (StoppedThread) -> Void = { _ in }, _ body: (borrowing StoppedProcess) throws -> Value
    ) throws -> StopResult<Value> {
        let helping = helper.map { OtherThread($0) }
        defer { helping?.join() }
        do {
            return try onOwnThread {
                var stopped = try StoppedProcess.prepare(process)
                try stopped.stop(within: timeout, observer)
                let threadCount = stopped.threads.count
                let value = try body(stopped)
                return StopResult(value: value, pause: stopped.release(), threadCount: threadCount)
            }
        } catch {
            closing()
            throw error
        }
    }

    /// The same for one thread; the others run on.
    public func withStopped<Value>(
        _ thread: ThreadID, of process: ProcessHandle, timeout: Duration, _ body: (borrowing StoppedProcess) throws -> Value
    ) throws -> StopResult<Value> {
        try onOwnThread {
            var stopped = try StoppedProcess.prepare(process, only: thread)
            try stopped.stop(within: timeout)
            let value = try body(stopped)
            return StopResult(value: value, pause: stopped.release(), threadCount: 1)
        }
    }

    /// Lets the target run for a while between attempts: 1 ms, doubled with each, at most 64 ms.
    public func rest(_ attempt: Int) {
        _ = fother_sleep(1_000_000 << Int64(min(max(attempt - 1, 0), 6)))
    }

    /// Lets everybody else on this machine go first, but while somebody stands still for it; for the calling thread, and those that
    /// it starts from now on. Where threads may not run first for that while, nothing is changed.
    public static func stepBack() {
        guard fother_set_realtime(1) == 0 else { return }
        _ = fother_set_realtime(0)
        _ = fother_set_nice(niceWhileNobodyWaits)
    }
    private static let niceWhileNobodyWaits: Int32 = 10

    /// A moment, for who waits for another processor's work to begin.
    public static func shortRest() { _ = fother_sleep(20_000) }

    /// The least a stop of all threads can cost here and now: seize, interrupt, read registers, detach, and nothing
    /// else. For benchmarks, to be printed beside a pause of the same run.
    public func measureFloor(_ process: ProcessHandle) throws -> Duration {
        let threads = try process.threads()
        return try onOwnThread {
            var seized: [ThreadID] = []
            seized.reserveCapacity(threads.count)
            for thread in threads where fother_seize(thread.value, 0) == 0 { seized.append(thread) }
            _ = fother_set_realtime(1)
            let start = fother_now()
            for thread in seized { _ = fother_interrupt(thread.value) }
            for thread in seized {
                _ = waitForStop(thread)
                _ = registers(of: thread)
            }
            for thread in seized { _ = fother_detach(thread.value, 0) }
            let end = fother_now()
            _ = fother_set_realtime(0)
            return .nanoseconds(end - start)
        }
    }
}
