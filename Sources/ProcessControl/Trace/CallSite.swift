// One call stub in one process, and the thread that is sent through it: who is asked, how it is followed, how it comes home.

import CLinux
import ELF
import Glibc

struct CallSite: Sendable {
    let process: ProcessHandle
    let memory: ProcessMemory
    let maps: [Mapping]
    let stub: CallStub
    let address: RuntimeAddress
    let calls: [SystemCall]
    /// Rooms with other stubs in them.
    let busy: [Range<RuntimeAddress>]

    struct Outcome: Sendable {
        var results: [Int64]
        /// The thread is back where it was, and nothing can lead into the stub again.
        var stubIsFree: Bool
    }
    enum Attempt: Sendable {
        case done(Outcome)
        case unsuitable(Failure)
    }
    /// The calls may still be made later.
    struct Abandoned: Error { let failure: Failure }

    /// Free stack that a thread must have below its stack pointer, in the mapping that holds it.
    static let stackRoomBytes = 4096
    static let candidatesMax = 64
    /// Stops that are none of the stub's before the thread is left alone: it is in a signal handler.
    static let foreignStopsMax = 1000
    /// Nanoseconds before the first look at what a thread did that was let go; doubled with each further one.
    static let patience: Int64 = 100_000
    static let looksMax = 8
    static let handlerStackBytes = 64 << 10
    static let returnSearchBytes = 1 << 20

    /// Asks one thread after the other, sleepers that nobody will miss first.
    func callInSomeThread(within timeout: Duration, only: ThreadID?) throws -> Outcome {
        let deadline = fother_now() + timeout.nanoseconds
        var reason = failure("no-thread-for-call", "it has no thread that can be borrowed.")
        var round = 0
        while true {
            for thread in try only.map({ [$0] }) ?? candidates() {
                // One that is at work is away from it for less when nobody looks on. What went wrong can then only be asked again.
                if (try? process.activity(of: thread)) == .running,
                    (try? process.status(of: thread))?.seccomp == ProcessStatus.Seccomp.none,
                    case .done(let outcome) = try onOwnThread({ try callUnattended(thread, deadline) })
                {
                    return outcome
                }
                let attempt = try onOwnThread { try call(in: thread, deadline) }
                switch attempt {
                case .done(let outcome): return outcome
                case .unsuitable(let why): reason = why
                }
                if fother_now() >= deadline { throw reason }
            }
            round += 1
            _ = try process.livingThread()  // or it has ended
            if fother_now() >= deadline { throw reason }
            Tracer().rest(round)
        }
    }

    private func candidates() throws(Failure) -> [ThreadID] {
        var ranked: [(rank: Int, thread: ThreadID)] = []
        for thread in try process.threads().prefix(Self.candidatesMax) {
            ranked.append((Self.rank((try? process.activity(of: thread)) ?? .unknown), thread))
        }
        return ranked.sorted { ($0.rank, $0.thread) < ($1.rank, $1.thread) }.map(\.thread)
    }

    /// Lower is better. Sleepers that the kernel restarts exactly come first: nothing waits for them. Calls that return
    /// EINTR on any interruption come last: if Fother is killed at the wrong moment, the program sees it.
    static func rank(_ activity: ThreadActivity) -> Int {
        switch activity {
        case .inSystemCall(let number):
            if number == 202 || number == 0 || number == 34 || number == 61 || number == 43 || number == 288 { return 0 }
            if number == 7 || number == 23 || number == 35 || number == 230 || number == 270 || number == 271 { return 1 }
            return SystemCallRestart.repeatable.contains(Int64(number)) ? 4 : 3
        case .running: return 2
        case .unknown: return 5
        }
    }

    private func call(in thread: ThreadID, _ deadline: Int64) throws -> Attempt {
        try stopped(thread, deadline) { original in
            guard let outcome = try borrow(thread, original, deadline) else { return unusable(thread) }
            return .done(outcome)
        }
    }

    /// Stops a thread for `body`, which is given its registers, and lets it go on; `body` may have done that.
    private func stopped(_ thread: ThreadID, _ deadline: Int64, _ body: (Registers) throws -> Attempt) throws -> Attempt {
        let status = try? process.status(of: thread)
        // Without suspension a filter may kill the process for the call.
        var error = fother_seize(thread.value, FOTHER_SUSPEND_SECCOMP)
        if error == -EPERM || error == -EINVAL, status?.seccomp == ProcessStatus.Seccomp.none {
            error = fother_seize(thread.value, 0)
        }
        if error != 0 {
            if status?.seccomp != ProcessStatus.Seccomp.none, status?.isEnded == false, status?.tracer == nil {
                return .unsuitable(
                    failure(
                        "seccomp", "thread \(thread) has a seccomp filter that cannot be suspended from here.",
                        "Run fother as root and without a seccomp filter of its own; systemd's sandbox options install one."))
            }
            // Says why; nothing was attached.
            guard try seize(thread, of: process, status: status) else {
                return .unsuitable(failure("no-thread-for-call", "thread \(thread) has ended."))
            }
            return .unsuitable(failure("no-thread-for-call", "thread \(thread) could be attached only at the second attempt."))
        }
        _ = fother_alarm(max(deadline - fother_now(), 1))
        _ = fother_set_realtime(1)
        defer {
            _ = fother_set_realtime(0)
            _ = fother_alarm(0)
        }
        _ = fother_interrupt(thread.value)
        while true {
            switch waitForStop(thread) {
            case .ended: return .unsuitable(failure("no-thread-for-call", "thread \(thread) has ended."))
            case .alarm:
                if fother_now() >= deadline { return .unsuitable(failure("no-thread-for-call", "thread \(thread) did not stop in time.")) }
                continue
            case .signal(let signal):
                // It has something more important to do first.
                _ = fother_detach(thread.value, signal)
                return .unsuitable(failure("no-thread-for-call", "thread \(thread) is handling signals."))
            case .interrupted, .systemCall: break
            }
            break
        }
        guard var original = registers(of: thread) else {
            return .unsuitable(failure("no-thread-for-call", "thread \(thread) has ended."))
        }
        if let result = SystemCallRestart.correctedResult(
            Int64(bitPattern: original.rax), of: Int64(bitPattern: original.orig_rax),
            underFilter: status?.seccomp != ProcessStatus.Seccomp.none),
            (try? memory.read(at: RuntimeAddress(original.rip) + -2, count: 2)) == [0x0f, 0x05]
        {
            original.rax = UInt64(bitPattern: result)
            _ = setRegisters(original, of: thread)
        }
        defer { _ = fother_detach(thread.value, 0) }
        return try body(original)
    }

    private func unusable(_ thread: ThreadID) -> Attempt {
        .unsuitable(failure("no-thread-for-call", "thread \(thread) stands on a stack or in code that cannot be used."))
    }

    /// Sends a thread through the stub and lets go of it at once: the stub brings it home. What it did is for the map to say; where
    /// it did not do everything, what there is was undone as the stub does it, or the thread is still there.
    private func callUnattended(_ thread: ThreadID, _ deadline: Int64) throws -> Attempt {
        var stackPointer: UInt64 = 0
        let sent = try stopped(thread, deadline) { original in
            stackPointer = original.rsp
            guard canBorrow(original), send(thread, original) else { return unusable(thread) }
            return .done(Outcome(results: calls.map(\.success), stubIsFree: false))
        }
        guard case .done(var outcome) = sent else { return sent }
        for attempt in 0... {
            _ = fother_sleep(Self.patience << Int64(min(attempt, 5)))
            let isDone: Bool
            do {
                isDone = calls.areDone(in: try process.mappings())
                // The stub is taken away only when the thread was seen outside.
                outcome.stubIsFree = try hasLeft(thread, from: stackPointer, deadline)
            } catch {
                // Somebody traces it by now, or it cannot be looked at: the thread may still be on its way.
                if (error as? Failure)?.saysProcessIsGone == true { throw error }
                throw abandoned(thread)
            }
            if isDone, outcome.stubIsFree || attempt >= Self.looksMax { return .done(outcome) }
            if outcome.stubIsFree {
                if let done = try whatWasDone(by: thread) { return .done(done) }
                return .unsuitable(failure("call-failed", "thread \(thread) came back, and the call had not worked."))
            }
            if fother_now() >= deadline { break }
        }
        throw abandoned(thread)
    }

    /// Whether a thread that was sent through the stub is neither in it nor will return there, as one that a signal took out of it.
    private func hasLeft(_ thread: ThreadID, from stackPointer: UInt64, _ deadline: Int64) throws -> Bool {
        let inside = address.value...(address + stub.bytes.count).value
        let words = WordReader(memory)
        var isIn = true
        let look = try stopped(thread, deadline) { registers in
            let sp = RuntimeAddress(registers.rsp & ~7)
            if !inside.contains(registers.rip), let stack = maps.mapping(at: sp)?.range, stack.contains(RuntimeAddress(stackPointer)) {
                // What a handler will return to stands between here and there; or above, where its stack is a part of this one.
                let end = min(stack.upperBound, max(sp, RuntimeAddress(stackPointer)) + Self.handlerStackBytes)
                if end - sp <= Self.returnSearchBytes, words.read(sp..<end) {
                    isIn = words.first(from: sp.value, between: inside, where: { _ in true }) != nil
                }
            }
            return .done(Outcome(results: [], stubIsFree: true))
        }
        if case .done = look { return !isIn }
        // One that has ended will not return.
        return (try? process.status(of: thread))?.isEnded ?? true
    }

    /// Makes the calls in a stopped thread with these registers, and leaves it stopped. Nil when it is not suitable; then
    /// nothing was done to it.
    func borrow(_ thread: ThreadID, _ original: Registers, _ deadline: Int64) throws -> Outcome? {
        guard canBorrow(original), send(thread, original) else { return nil }
        _ = fother_alarm(max(deadline - fother_now(), 1))
        return try follow(thread, original, deadline)
    }

    /// Puts a stopped thread at the entry of the stub. From then on it finds home by itself, whatever happens to us.
    private func send(_ thread: ThreadID, _ original: Registers) -> Bool {
        var borrowed = original
        borrowed.rsp = original.rsp &- UInt64(CallStub.stackBytes)
        borrowed.rip = (address + stub.entry).value
        let home = (0..<8).map { UInt8(truncatingIfNeeded: original.rip >> UInt64(8 * $0)) }
        return (try? memory.write(home, at: RuntimeAddress(borrowed.rsp))) != nil && setRegisters(borrowed, of: thread)
    }

    /// Follows the thread from call to call, and puts it back where it was.
    /// Nil when it ended before it had done anything.
    private func follow(_ thread: ThreadID, _ original: Registers, _ deadline: Int64) throws -> Outcome? {
        var results: [Int64] = []
        var undone = false
        var entered = false
        var signal: Int32 = 0
        var signalsDelivered = false
        var foreignStops = 0
        while true {
            _ = fother_continue_to_syscall(thread.value, signal)
            signal = 0
            switch waitForStop(thread) {
            case .ended: return try whatWasDone(by: thread)
            case .alarm:
                guard fother_now() >= deadline else { continue }
                throw abandoned(thread)
            case .interrupted: continue
            case .signal(let number):
                signal = number
                signalsDelivered = true
                continue
            case .systemCall: break
            }
            guard let now = registers(of: thread) else { return try whatWasDone(by: thread) }
            let expected = results.count < calls.count && !undone ? stub.callEnds[results.count] : stub.undoEnd
            guard let expected, now.rip == (address + expected).value else {
                foreignStops += 1
                if foreignStops > Self.foreignStopsMax { throw abandoned(thread) }
                continue
            }
            entered.toggle()
            if entered { continue }
            if undone { break }
            let result = Int64(bitPattern: now.rax)
            let call = calls[results.count]
            results.append(result)
            if !call.isSuccess(result) {
                guard results.count > 1, stub.undoEnd != nil else { break }
                undone = true
            } else if results.count == calls.count {
                break
            }
        }
        // A handler may have run, and the kernel has decided what becomes of an interrupted call: only the stub knows that
        // now, and brings the thread home.
        if signalsDelivered { return Outcome(results: results, stubIsFree: false) }
        let restored = setRegisters(original, of: thread)
        // Makes the kernel look at the registers again at the release, and so restart the call that `original` was in.
        _ = fother_interrupt(thread.value)
        return Outcome(results: results, stubIsFree: restored)
    }

    /// A borrowed thread can end on the way, cancelled or because all do. It cannot come back to the stub; how far it came
    /// is for the map to say. Nil: nothing was done, and another thread may be asked.
    private func whatWasDone(by thread: ThreadID) throws -> Outcome? {
        _ = try process.livingThread()  // or it has ended
        let now = try process.mappings()
        if calls.areDone(in: now) { return Outcome(results: calls.map(\.success), stubIsFree: true) }
        let isStarted =
            switch calls[0] {
            case .mapAnonymous: now.contains { $0.range.overlaps(calls[0].range) }
            case .movePage: calls.contains { $0.isDone(in: now) }
            case .protect, .unmap, .openFile, .mapFile, .closeFile: false
            }
        guard isStarted else { return nil }
        throw failure("call-failed", "thread \(thread) did not get through \(calls.map(\.name).joined(separator: ", ")).")
    }

    /// It must run 64-bit code on the stack that it was given: nothing is known of the space below others.
    private func canBorrow(_ registers: Registers) -> Bool {
        let (ip, sp) = (RuntimeAddress(registers.rip), RuntimeAddress(registers.rsp))
        guard registers.cs == 0x33, !busy.contains(where: { $0.contains(ip) }), let stack = maps.mapping(at: sp),
            stack.permissions.isSuperset(of: [.read, .write]), sp - stack.range.lowerBound >= Self.stackRoomBytes
        else { return false }
        return stack.path == "[stack]" || stack.range.contains(RuntimeAddress(registers.fs_base))
    }

    /// Nobody can come here any more, or nobody ever did.
    func clear() { try? memory.write([UInt8](repeating: 0, count: stub.bytes.count), at: address) }

    func failure(_ code: String, _ sentence: String, _ remedy: String = "Nothing was changed; try again later.") -> Failure {
        Failure(code, sentence, at: "\(process)", remedy: remedy)
    }

    private func abandoned(_ thread: ThreadID) -> Abandoned {
        Abandoned(
            failure: failure(
                "call-timeout", "thread \(thread) took a call and did not make it in time.",
                "It is harmless: the call is made when the thread runs again. Try again later."))
    }

    func failed(_ call: SystemCall, _ result: Int64) -> Failure {
        guard result < 0, result > -4096 else {
            return failure("call-failed", "\(call.name) at \(call.range.lowerBound) returned \(hex(UInt64(bitPattern: result))) instead.")
        }
        let error = Errno(result)
        let why =
            switch error.code {
            case ENOMEM: "It is at a limit of memory or of the number of mappings (vm.max_map_count, RLIMIT_AS, its cgroup)."
            case EEXIST: "Something was mapped there in the meantime; try again."
            case EACCES, EPERM: "A security module (SELinux execmem, PR_SET_MDWE) forbids it; restart it with the fixed package."
            case EAGAIN: "It locks its memory and is at its limit (RLIMIT_MEMLOCK)."
            default: "Nothing was changed."
            }
        return failure("call-failed", "\(call.name) at \(call.range.lowerBound) failed in it: \(error.text).", why)
    }
}
