// The only way from safe Swift to ptrace: each function wraps one shim call and owns its pointers. Everything but
// `onOwnThread` belongs to the thread that seized.

import CLinux
import ELF
import Glibc

/// The general registers of a stopped thread.
typealias Registers = user_regs_struct

/// What happened to a thread that was waited for.
enum StopEvent: Equatable {
    /// By an interrupt; or it was, or now is, part of a job-control stop.
    case interrupted
    /// A signal was taken from its queue and waits to be delivered.
    case signal(Int32)
    /// At the entry into or the exit from a system call.
    case systemCall
    /// It does not exist any more.
    case ended
    /// The alarm went off.
    case alarm
}

func waitForStop(_ thread: ThreadID) -> StopEvent {
    var signal: Int32 = 0
    var event: Int32 = 0
    switch unsafe fother_wait_stop(thread.value, &signal, &event) {
    case 0:
        if event != 0 { return .interrupted }
        return signal == SIGTRAP | 0x80 ? .systemCall : .signal(signal)
    case -EINTR: return .alarm
    default: return .ended
    }
}

/// Nil when the thread is not stopped, because it has been killed.
func registers(of thread: ThreadID) -> Registers? {
    var registers = Registers()
    return unsafe fother_get_registers(thread.value, &registers) == 0 ? registers : nil
}

func setRegisters(_ registers: Registers, of thread: ThreadID) -> Bool {
    var registers = registers
    return unsafe fother_set_registers(thread.value, &registers) == 0
}

/// The XSAVE area as little-endian words; empty when the kernel does not give it.
func vectorWords(of thread: ThreadID) -> [UInt64] {
    let capacity = 2048
    return unsafe [UInt64](unsafeUninitializedCapacity: capacity) { buffer, used in
        let n = unsafe fother_get_vector_state(thread.value, buffer.baseAddress, capacity * 8)
        used = Int(max(n, 0)) / 8
    }
}

/// Runs `body` on a thread of its own and returns what it returned. When this returns, the kernel has released every
/// thread that `body` seized, whatever happened.
func onOwnThread<Value>(_ body: () throws -> Value) throws -> Value {
    var result: Result<Value, any Error>?
    // The caller waits, so nothing is shared that both use at once.
    try withoutActuallyEscaping(body) { body in
        let job = Job { result = Result { try body() } }
        let error = unsafe fother_on_own_thread(
            { raw in if let raw = unsafe raw { unsafe Unmanaged<Job>.fromOpaque(raw).takeUnretainedValue().run() } },
            Unmanaged.passUnretained(job).toOpaque())
        withExtendedLifetime(job) {}
        guard error == 0 else {
            throw Failure(
                "no-thread", "no thread can be started: \(Errno(error).text).", remedy: "Raise the limit of processes (ulimit -u).")
        }
    }
    guard let result else { throw Failure("no-thread", "the tracer's thread did not run.") }
    return try result.get()
}

private final class Job {
    let run: () -> Void
    init(_ run: @escaping () -> Void) { self.run = run }
}

/// A thread beside the caller's, which waits for its end with `join`.
final class OtherThread {
    private let job: Job
    private var handle: UInt64 = 0

    /// Where no thread can be started `work` does not run: it is help that can be done without.
    init(_ work: @escaping @Sendable () -> Void) {
        job = Job(work)
        handle = unsafe fother_start_thread(
            { raw in if let raw = unsafe raw { unsafe Unmanaged<Job>.fromOpaque(raw).takeUnretainedValue().run() } },
            Unmanaged.passUnretained(job).toOpaque())
    }

    func join() {
        if handle != 0 { fother_join_thread(handle) }
        handle = 0
        withExtendedLifetime(job) {}
    }
}
