// What a stop of all threads leaves behind in the process: nothing.

import ELF
import Foundation
import Glibc
import LivePatchApplier
import Testing

@testable import ProcessControl

extension SystemTests {
    @Suite struct StopTests {
        let tracer = Tracer()

        /// Calls that block for ever. The first group the kernel restarts by itself; the second returns EINTR on any
        /// interruption, and Fother has to see to it.
        static let calls = [
            "read", "futex", "futex_timeout", "nanosleep", "poll", "select", "pause",
            "epoll_wait", "epoll_wait_timeout", "recv", "sigtimedwait", "semop", "semtimedop", "io_uring_enter",
        ]

        @Test("every thread stands still, and goes on")
        func allThreads() throws {
            let victim = try Victim("--threads", "10")
            let result = try tracer.withStopped(victim.handle, timeout: .seconds(5)) { stopped in
                try stopped.threads.map { try victim.handle.status(of: $0.id).state }
            }
            #expect(result.threadCount == 11)
            #expect(result.value == Array(repeating: .traced, count: 11))
            #expect(try victim.handle.status().tracer == nil)
            try victim.expectHealthyLoad()
        }

        @Test("whatever fails during a stop, the process goes on")
        func throwingReleases() throws {
            let victim = try Victim("--threads", "3")
            struct Oops: Error {}
            #expect(throws: Oops.self) {
                try tracer.withStopped(victim.handle, timeout: .seconds(5)) { _ in throw Oops() }
            }
            try victim.expectHealthyLoad()
        }

        @Test("a blocking call does not return because of a stop", arguments: calls)
        func callsGoOn(_ call: String) throws {
            let victim = try Self.supported({ try Victim("--block", call) })
            _ = try victim.blockedThread
            for _ in 0..<5 { _ = try tracer.withStopped(victim.handle, timeout: .seconds(5)) { _ in } }
            _ = try victim.blockedThread
            #expect(try victim.blocked.returns == 0)
        }

        @Test("a real signal that arrives during the stop interrupts the call as ever", arguments: calls)
        func signalsArrive(_ call: String) throws {
            let victim = try Self.supported({ try Victim("--block", call) })
            _ = try victim.blockedThread
            _ = try tracer.withStopped(victim.handle, timeout: .seconds(5)) { _ in victim.child.signal(SIGUSR1) }
            try victim.wait { try victim.blocked.returns == 1 }
            #expect(try victim.blocked == (1, EINTR, 1))
        }

        @Test("a filter that kills on restart_syscall does not see one", arguments: ["nanosleep", "poll", "futex_timeout"])
        func restartFilter(_ call: String) throws {
            let victim = try Victim("--block", call, "--no-restart-filter")
            _ = try victim.blockedThread
            for _ in 0..<3 { _ = try tracer.withStopped(victim.handle, timeout: .seconds(5)) { _ in } }
            _ = try victim.blockedThread
            #expect(try victim.blocked.returns == 0)
        }

        @Test("a process that waits for its vfork child is given up in time, and lives")
        func vforkParent() throws {
            let victim = try Victim("--vfork")
            try victim.wait { try victim.handle.status().state == .uninterruptible }
            let failure = #expect(throws: Failure.self) {
                try tracer.withStopped(victim.handle, timeout: .milliseconds(100)) { _ in }
            }
            #expect(failure?.code == "stop-timeout")
            #expect(failure?.sentence.contains("vfork") == true)
            try victim.child.write("\n")  // the child ends
            #expect(try victim.child.readLine() == "ready")
            #expect(try victim.isVulnerable)
        }

        @Test("a stop that is given up is not noticed either", arguments: ["epoll_wait", "sigtimedwait", "read", "poll"])
        func givenUp(_ call: String) throws {
            let victim = try Victim("--block", call, "--threads", "12")
            _ = try victim.blockedThread
            var givenUp = 0
            for _ in 0..<50 {
                do { _ = try tracer.withStopped(victim.handle, timeout: .nanoseconds(1)) { _ in } } catch { givenUp += 1 }
            }
            #expect(givenUp == 50)
            _ = try victim.blockedThread
            #expect(try victim.blocked.returns == 0)
        }

        @Test("a process that exits under our hands is gone, and its parent learns how it ended")
        func exits() throws {
            for _ in 0..<20 {
                let victim = try Victim("--threads", "3", "--exit-soon")
                while true {
                    do { _ = try tracer.withStopped(victim.handle, timeout: .seconds(5)) { _ in } } catch {
                        #expect((error as? Failure)?.saysProcessIsGone == true, "\(error)")
                        break
                    }
                }
                #expect(try victim.child.wait(timeout: .seconds(10)) == .exited(7))
            }
        }

        @Test("a process that becomes another program is gone")
        func execs() throws {
            let victim = try Victim("--threads", "3")
            let memory = try victim.handle.memory()
            try victim.child.write("exec\n")
            let place = try #require(try? victim.handle.mappings().first?.range.lowerBound)
            try victim.wait {
                do { _ = try tracer.withStopped(victim.handle, timeout: .seconds(5)) { _ in try memory.read(at: place, count: 8) } } catch {
                    return (error as? Failure)?.saysProcessIsGone == true
                }
                return false
            }
            #expect(try victim.handle.status().name == "sleep")
            #expect(try victim.handle.status().tracer == nil)
        }

        @Test("a process that makes threads all the time is stopped completely")
        func threadChurn() throws {
            let victim = try Victim("--churn")
            for _ in 0..<50 {
                let running = try tracer.withStopped(victim.handle, timeout: .seconds(5)) { stopped in
                    let stopped = Set(stopped.threads.map(\.id))
                    return try victim.handle.threads().filter {
                        !stopped.contains($0) && (try? victim.handle.status(of: $0))?.isEnded == false
                    }
                }.value
                #expect(running.isEmpty)
            }
            #expect(try victim.isVulnerable)
        }

        @Test("a stopped process stays stopped")
        func stoppedStaysStopped() throws {
            let victim = try Victim("--threads", "2")
            victim.child.signal(SIGSTOP)
            try victim.wait { try victim.handle.status().state == .stopped }
            for _ in 0..<3 { _ = try tracer.withStopped(victim.handle, timeout: .seconds(5)) { _ in } }
            try victim.wait { try victim.handle.status().state == .stopped }
            victim.child.signal(SIGCONT)
            try victim.expectHealthyLoad()
        }

        @Test("a kernel thread is called one")
        func kernelThread() throws {
            // A container shows none.
            guard let kernel = try listProcesses().first(where: { (try? ProcessHandle($0).status())?.isKernelThread == true }) else {
                return
            }
            let failure = #expect(throws: Failure.self) {
                try tracer.withStopped(ProcessHandle(kernel), timeout: .seconds(1)) { _ in }
            }
            #expect(failure?.code == "kernel-thread")
        }

        static func supported(_ make: () throws -> Victim) throws -> Victim {
            do { return try make() } catch is Victim.Unsupported { try Test.cancel("this kernel lacks what the test is about") }
        }
    }
}
