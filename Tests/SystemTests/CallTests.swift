// System calls made in a borrowed thread: they happen, or nothing does, and the thread never knows.

import ELF
import Foundation
import Glibc
import LivePatchApplier
import Testing

@testable import ProcessControl

extension SystemTests {
    @Suite struct CallTests {
        let tracer = Tracer()
        let page = 4096

        /// Free pages far from everything that grows.
        private func place(in victim: Victim, pages: Int = 4) throws -> RuntimeAddress {
            let maps = try victim.handle.mappings()
            let object = try #require(maps.first { $0.permissions.contains(.execute) && $0.isFile })
            return object.range.lowerBound + -(64 + pages) * page
        }

        /// mmap of four pages, of which the first becomes read-only and the last writable.
        private func calls(at address: RuntimeAddress) -> [SystemCall] {
            [
                .mapAnonymous(at: address, bytes: 4 * page, [.read, .execute]), .protect(address, bytes: page, [.read]),
                .protect(address + 3 * page, bytes: page, [.read, .write]),
            ]
        }

        private func permissions(_ victim: Victim, _ address: RuntimeAddress) throws -> [String] {
            let maps = try victim.handle.mappings()
            return (0..<4).map { maps.mapping(at: address + $0 * page)?.permissions.description ?? "none" }
        }

        private func doAndUndo(in victim: Victim, only: ThreadID? = nil) throws {
            let address = try place(in: victim)
            try tracer.perform(calls(at: address), in: victim.handle, maps: victim.handle.mappings(), only: only)
            #expect(try permissions(victim, address) == ["r--p", "r-xp", "r-xp", "rw-p"])
            try tracer.perform(
                [.unmap(address, bytes: 4 * page)], in: victim.handle, maps: victim.handle.mappings(), only: only)
            #expect(try permissions(victim, address) == Array(repeating: "none", count: 4))
        }

        @Test("memory is mapped, divided and unmapped, and the code that did it is gone", arguments: [false, true])
        func mapAndUnmap(_ isStatic: Bool) throws {
            let victim = try Victim(isStatic: isStatic)
            let memory = try victim.handle.memory()
            let before = try CallRoom.occupied(in: victim.handle.mappings(), of: memory)
            try doAndUndo(in: victim)
            #expect(try CallRoom.occupied(in: victim.handle.mappings(), of: memory) == before)
            #expect(try victim.isVulnerable)
        }

        @Test("a thread blocked in a call does not know that it was borrowed", arguments: StopTests.calls)
        func blockedThreads(_ call: String) throws {
            let victim = try StopTests.supported({ try Victim("--block", call) })
            let thread = try victim.blockedThread
            for _ in 0..<3 { try doAndUndo(in: victim, only: thread) }
            #expect(try victim.blockedThread == thread)
            #expect(try victim.blocked.returns == 0)
            // And it can still be interrupted as ever.
            victim.child.signal(SIGUSR1)
            try victim.wait { try victim.blocked.returns == 1 }
            #expect(try victim.blocked == (1, EINTR, 1))
        }

        @Test("running threads are borrowed without a wrong result")
        func runningThreads() throws {
            let victim = try Victim("--threads", "3")
            for thread in try victim.handle.threads() where thread.value != victim.id.value {
                for _ in 0..<20 { try doAndUndo(in: victim, only: thread) }
            }
            try victim.expectHealthyLoad()
        }

        @Test("a storm of signals does not confuse a borrowed thread")
        func signalStorm() throws {
            let victim = try Victim("--block", "pause")
            let thread = try victim.blockedThread
            let storm = try ChildProcess(
                ["sh", "-c", "i=0; while [ $i -lt 2000 ]; do kill -USR1 \(victim.id); i=$((i+1)); done"])
            var rounds = 0
            while try storm.poll() == nil {
                do {
                    try doAndUndo(in: victim, only: thread)
                    rounds += 1
                } catch let failure as Failure {
                    #expect(failure.code == "no-thread-for-call", "\(failure)")
                }
            }
            #expect(rounds > 0)
            #expect(try victim.blocked.signals > 0)
            // The thread waits again, and one more signal still wakes it.
            _ = try victim.blockedThread
            let before = try victim.blocked
            victim.child.signal(SIGUSR1)
            try victim.wait { try victim.blocked.returns > before.returns }
            #expect(try victim.blocked.signals == before.signals + 1)
            #expect(try victim.isVulnerable)
        }

        @Test("what is there already is left alone, with the kernel's reason")
        func occupied() throws {
            let victim = try Victim()
            let maps = try victim.handle.mappings()
            let library = try #require(maps.first { $0.path.hasSuffix("libtarget.so") })
            let failure = #expect(throws: Failure.self) {
                try tracer.perform(calls(at: library.range.lowerBound), in: victim.handle, maps: maps)
            }
            #expect(failure?.code == "call-failed")
            #expect(failure?.sentence.contains("File exists") == true)
            #expect(try victim.handle.mappings() == maps)
            #expect(try victim.isVulnerable)
        }

        @Test("when a later call fails, the mapping that the first one made is removed")
        func undone() throws {
            let victim = try Victim()
            let address = try place(in: victim)
            let failure = #expect(throws: Failure.self) {
                try tracer.perform(
                    [.mapAnonymous(at: address, bytes: 4 * page, [.read]), .protect(address + 1, bytes: page, [.read])],
                    in: victim.handle, maps: victim.handle.mappings())
            }
            #expect(failure?.code == "call-failed")
            #expect(failure?.sentence.contains("mprotect") == true)
            #expect(try permissions(victim, address) == Array(repeating: "none", count: 4))
            #expect(try victim.isVulnerable)
        }

        @Test("filters that kill or refuse for memory calls do neither", arguments: ["kill", "errno"])
        func filters(_ kind: String) throws {
            let victim = try Victim("--seccomp", kind, "--threads", "2")
            try doAndUndo(in: victim)
            try victim.expectHealthyLoad()
        }

        @Test("a process that forbids making memory executable gets executable memory")
        func noExecutableMemory() throws {
            let victim = try StopTests.supported({ try Victim("--mdwe") })
            try doAndUndo(in: victim)
            #expect(try victim.isVulnerable)
        }

        @Test("a stopped process makes the call and stays stopped")
        func stopped() throws {
            let victim = try Victim("--threads", "2")
            victim.child.signal(SIGSTOP)
            try victim.wait { try victim.handle.status().state == .stopped }
            try doAndUndo(in: victim)
            // A released thread is on its way back into the stop for a moment.
            try victim.wait { try victim.handle.status().state == .stopped }
            victim.child.signal(SIGCONT)
            try victim.expectHealthyLoad()
        }

        @Test("one thread makes the call while all stand still")
        func duringAStop() throws {
            let victim = try Victim("--threads", "3", "--block", "epoll_wait")
            _ = try victim.handle.threads()
            let address = try place(in: victim)
            for _ in 0..<10 {
                let map = try tracer.prepare(calls(at: address), in: victim.handle, maps: victim.handle.mappings())
                _ = try tracer.withStopped(victim.handle, timeout: .seconds(5)) { try $0.perform(map) }
                #expect(try permissions(victim, address) == ["r--p", "r-xp", "r-xp", "rw-p"])
                let unmap = try tracer.prepare([.unmap(address, bytes: 4 * page)], in: victim.handle, maps: victim.handle.mappings())
                _ = try tracer.withStopped(victim.handle, timeout: .seconds(5)) { try $0.perform(unmap) }
            }
            try victim.expectHealthyLoad()
            #expect(try victim.blocked.returns == 0)
        }
    }
}
