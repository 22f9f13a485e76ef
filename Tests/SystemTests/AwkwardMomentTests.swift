// Patching at moments, and in processes, that make it hard: each is refused with its reason or done right, and the target
// lives.

import ELF
import Foundation
import Glibc
import LivePatch
import LivePatchApplier
import ProcessControl
import Testing

extension SystemTests {
    @Suite struct AwkwardMomentTests {
        let applier = Applier(Tracer())
        let impatient = Applier(Tracer(), budget: TransitionBudget(attemptsMax: 10, timeout: .milliseconds(300)))

        private func patchAndRevert(_ victim: Victim) throws {
            #expect(try victim.isVulnerable)
            #expect(applier.apply(victim.patch, to: victim.id).word == "patched")
            #expect(try !victim.isVulnerable)
            #expect(applier.revert(victim.patch, in: victim.id).word == "reverted")
            #expect(try victim.isVulnerable)
        }

        @Test(
            "filters that kill or refuse memory calls, no dumps, no new executable memory: patched all the same",
            arguments: [["--seccomp", "kill"], ["--seccomp", "errno"], ["--undumpable"], ["--mdwe"]])
        func restricted(_ arguments: [String]) throws {
            let victim = try StopTests.supported({ try Victim(arguments[0], arguments.count > 1 ? arguments[1] : "") })
            try patchAndRevert(victim)
        }

        @Test("a filter that kills on restart_syscall, with threads asleep in calls that have one", arguments: ["nanosleep", "poll"])
        func restartFilter(_ call: String) throws {
            let victim = try Victim("--block", call, "--no-restart-filter")
            _ = try victim.blockedThread
            try patchAndRevert(victim)
            #expect(try victim.blocked.returns == 0)
        }

        @Test("a blocking call sees nothing of ten patches", arguments: StopTests.calls)
        func blockedCalls(_ call: String) throws {
            let victim = try StopTests.supported({ try Victim("--block", call) })
            _ = try victim.blockedThread
            for _ in 0..<5 { try patchAndRevert(victim) }
            #expect(try victim.blocked.returns == 0)
        }

        @Test("a thread inside an old function is waited for, and named")
        func held() throws {
            let victim = try Victim()
            #expect(try victim.ask("hold") == "holding")
            #expect(impatient.apply(victim.patch, to: victim.id).word == #"blocked by ["target_hold"]"#)
            #expect(try victim.state == "none")
            #expect(try victim.isVulnerable)
            #expect(try victim.ask("unhold") == "2")
            try patchAndRevert(victim)
        }

        @Test("a thread that came back into the patch keeps it from being reverted")
        func heldInside() throws {
            let victim = try Victim()
            #expect(applier.apply(victim.patch, to: victim.id).word == "patched")
            #expect(try victim.ask("hold") == "holding")
            #expect(impatient.revert(victim.patch, in: victim.id).word == #"blocked by ["patched code"]"#)
            #expect(try !victim.isVulnerable)
            #expect(try victim.ask("unhold") == "2")
            #expect(applier.revert(victim.patch, in: victim.id).word == "reverted")
            #expect(try victim.isVulnerable)
        }

        @Test("a signal handler on its own stack does not hide the function that it interrupted")
        func alternateStack() throws {
            let victim = try Victim("--altstack")
            #expect(impatient.apply(victim.patch, to: victim.id).word == #"blocked by ["target_hold"]"#)
            #expect(try victim.ask("leave") == "leaving")
            try patchAndRevert(victim)
        }

        @Test("a call that a sleeping handler has interrupted from its own stack is not forgotten where nobody is stopped")
        func alternateStackAsleep() throws {
            let victim = try Victim("--altstack")
            var swapping = applier
            swapping.path = .pageSwap
            swapping.budget.settling = .milliseconds(100)
            guard case .patched(let report) = swapping.apply(victim.patch, to: victim.id) else {
                Issue.record("not patched")
                return
            }
            #expect(report.finishing.map(\.function) == ["target_hold"])
            #expect(try victim.ask("leave") == "leaving")
            try victim.wait { swapping.finishing(victim.patch, in: victim.id)?.isEmpty == true }
            #expect(swapping.revert(victim.patch, in: victim.id).word == "reverted")
        }

        @Test("a process goes on without its main thread, and is seen and patched")
        func mainThreadEnded() throws {
            let victim = try Victim("--leave-main", "--threads", "2")
            try victim.wait { try victim.handle.status().state == .zombie }
            let scan = try ProcessScan(held: { _ in nil })
            let view = try #require(scan.views.first { $0.id == victim.id })
            #expect(view.objects.contains { $0.buildID == victim.patch.buildID })
            #expect(view.program == victim.fixture.program)
            try patchAndRevert(victim)
            try victim.expectHealthyLoad()
        }

        @Test("threads that come and go all the time")
        func threadChurn() throws {
            let victim = try Victim("--churn")
            for _ in 0..<10 { try patchAndRevert(victim) }
        }

        @Test("while a vfork child runs in the same memory it is refused, and afterwards patched")
        func vfork() throws {
            let victim = try Victim("--vfork")
            try victim.wait { try victim.handle.status().state == .uninterruptible }
            #expect(impatient.apply(victim.patch, to: victim.id).word == "memory-shared")
            let child = try #require(try MemoryGroups().sharing(with: victim.handle).first)
            #expect(impatient.apply(victim.patch, to: child).word == "memory-shared")
            try victim.child.write("\n")
            #expect(try victim.child.readLine() == "ready")
            try patchAndRevert(victim)
        }

        @Test("a child forked from a patched process is patched too, and reverted by itself")
        func forkedChild() throws {
            let victim = try Victim()
            #expect(applier.apply(victim.patch, to: victim.id).word == "patched")
            #expect(try victim.ask("fork") == "forked")  // from here on the child answers
            let child = try #require(try listProcesses().first { (try? ProcessHandle($0).status())?.parent == victim.id })
            #expect(try !victim.isVulnerable)
            #expect(applier.apply(victim.patch, to: child).word == "already patched")
            #expect(applier.revert(victim.patch, in: child).word == "reverted")
            #expect(try victim.isVulnerable)
            #expect(try victim.state == "patched", "the parent's memory is its own")
        }

        @Test("a process that ends at any moment of a transition is gone, and nothing hangs")
        func endsInTheMiddle() throws {
            for _ in 0..<20 {
                let victim = try Victim("--threads", "3", "--exit-soon")
                while true {
                    let words = (applier.apply(victim.patch, to: victim.id).word, applier.revert(victim.patch, in: victim.id).word)
                    if words == ("patched", "reverted") { continue }
                    // One that is ending is still there for a moment: not patched, then.
                    #expect(["patched", "gone"].contains(words.0) && ["gone", "not patched"].contains(words.1), "\(words)")
                    break
                }
                #expect(try victim.child.wait(timeout: .seconds(10)) == .exited(7))
            }
        }

        @Test("a process that becomes another program is never written to again")
        func becomesAnother() throws {
            for step in [TransitionStep.mapped, .written] {
                let victim = try Victim()
                let outcome = Applier(
                    Tracer(),
                    checkpoint: {
                        guard $0 == step else { return }
                        try? victim.child.write("exec\n")
                        while (try? victim.handle.status().name) != "sleep" { usleep(500) }
                    }
                ).apply(victim.patch, to: victim.id)
                #expect(["gone", "not affected"].contains(outcome.word), "\(outcome)")
                #expect(try victim.child.poll() == nil)
                #expect(try victim.handle.status().name == "sleep")
            }
        }
    }
}
