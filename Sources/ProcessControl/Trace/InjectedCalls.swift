// Makes system calls inside a target by borrowing one of its threads for some ten microseconds each. The thread is safe
// whatever becomes of Fother: see CallStub.

import CLinux
import ELF
import Glibc

/// Calls whose code is in the target and that nobody has made yet.
public struct PreparedCalls: Sendable {
    let site: CallSite
}

extension Tracer {
    /// Makes `calls` in order in one thread of `process`, each only if those before it worked; when a later one fails,
    /// a mapping made by the first is removed again. `maps` are the process's current ones. The results were read back
    /// from the kernel's map when this returns.
    ///
    /// Further failures: `no-slack` (no zero bytes behind the code of any object), `no-thread-for-call`,
    /// `seccomp`, `shadow-stack`, `call-failed`, `call-timeout`.
    public func perform(_ calls: [SystemCall], in process: ProcessHandle, maps: [Mapping], timeout: Duration = .seconds(2)) throws {
        try perform(calls, in: process, maps: maps, timeout: timeout, only: nil)
    }

    /// `only`: in this thread or not at all.
    func perform(
        _ calls: [SystemCall], in process: ProcessHandle, maps: [Mapping], timeout: Duration = .seconds(2), only: ThreadID?
    ) throws {
        guard !calls.isEmpty else { return }
        let prepared = try prepare(calls, in: process, maps: maps)
        try finish(prepared) { site in try site.callInSomeThread(within: timeout, only: only) }
    }

    /// Writes the code for `calls` into the running process; `StoppedProcess.perform` makes them while it stands still.
    /// Must be followed by `perform` or `abandon`. Failures as for `perform`.
    public func prepare(_ calls: [SystemCall], in process: ProcessHandle, maps: [Mapping]) throws(Failure) -> PreparedCalls {
        guard try !process.status().hasShadowStack else {
            throw Failure(
                "shadow-stack", "it runs with a shadow stack, which forbids to borrow a thread.", at: "\(process)",
                remedy: "Restart it with the fixed package.")
        }
        let memory = try process.memory()
        let stub = CallStub(calls)
        guard let room = try CallRoom.find(stub.bytes.count, in: maps, of: memory) else {
            throw Failure(
                "no-slack", "no object in it has \(stub.bytes.count) unused bytes behind its code.", at: "\(process)",
                remedy: "Restart it with the fixed package.")
        }
        let site = CallSite(
            process: process, memory: memory, maps: maps, stub: stub, address: room, calls: calls,
            busy: try CallRoom.occupied(in: maps, of: memory))
        try memory.write(stub.bytes, at: room)
        guard try memory.read(at: room, count: stub.bytes.count) == stub.bytes else {
            site.clear()
            throw site.failure("no-slack", "its code cannot be written.")
        }
        return PreparedCalls(site: site)
    }

    /// Takes the code out again of calls that were not made.
    public func abandon(_ prepared: PreparedCalls) { prepared.site.clear() }

    fileprivate func finish(_ prepared: PreparedCalls, _ make: (CallSite) throws -> CallSite.Outcome) throws {
        let site = prepared.site
        let outcome: CallSite.Outcome
        do { outcome = try make(site) } catch let error as CallSite.Abandoned {
            // A thread may still be on its way through the stub: it stays.
            throw error.failure
        } catch {
            site.clear()
            throw error
        }
        if outcome.stubIsFree { site.clear() }
        for (call, result) in zip(site.calls, outcome.results) where !call.isSuccess(result) { throw site.failed(call, result) }
        let after = try site.process.mappings()
        _ = try site.process.livingThread()  // or it is ending, and the map with it
        guard site.calls.areDone(in: after) else {
            throw site.failure(
                "call-failed", "\(site.calls.map(\.name).joined(separator: ", ")) reported success, but the map does not show it.")
        }
    }
}

extension StoppedProcess {
    /// Makes prepared calls in one of the stopped threads; the others stand still. The code is out of the process again
    /// when this returns or throws, unless a thread may still be on its way through it. Failures as for `Tracer.perform`.
    public func perform(_ prepared: PreparedCalls, timeout: Duration = .seconds(1)) throws {
        try Tracer().finish(prepared) { site in
            let deadline = fother_now() + timeout.nanoseconds
            for thread in threads where thread.pendingSignal == 0 {
                if let outcome = try site.borrow(thread.id, thread.registers, deadline) { return outcome }
            }
            throw site.failure("no-thread-for-call", "it has no thread that can be borrowed.")
        }
    }
}
