// Coroutines: a stack that no thread stands on can still return into the code that is about to change.

import ELF
import Foundation
import LivePatch
import LivePatchApplier
import ProcessControl
import Testing

extension SystemTests {
    @Suite struct CoroutineTests {
        let applier = Applier(Tracer())
        let impatient = Applier(Tracer(), budget: TransitionBudget(attemptsMax: 5, timeout: .milliseconds(300)))

        static let ways = ["ucontext", "setjmp"], stacks = ["heap", "mmap", "static"]

        private func expectBlocked(_ outcome: ProcessOutcome, _ function: String) {
            guard case .blocked(let threads, _) = outcome else {
                Issue.record("it was \(outcome)")
                return
            }
            #expect(threads.map(\.function) == [function])
            #expect(threads.first?.coroutineIn != nil)
        }

        @Test("suspended inside the function, wherever its stack is", arguments: ways, stacks)
        func suspended(_ way: String, _ stack: String) throws {
            let victim = try Victim("coroutines.c", [way, stack])
            #expect(try victim.ask("suspend") == "suspended")
            expectBlocked(impatient.apply(victim.patch, to: victim.id), "target_hold")
            #expect(try victim.isVulnerable)
            #expect(try victim.ask("resume") == "2")
        }

        @Test("where functions may switch call by call it is waited for, and then named as the one that finishes old code", arguments: ways)
        func finishing(_ way: String) throws {
            let victim = try Victim("coroutines.c", [way, "mmap"])
            try #require(victim.patch.manifest.consistency.mode == .perCall)
            #expect(try victim.ask("suspend") == "suspended")
            var quick = applier
            quick.budget.togetherAttemptsMax = 2
            quick.budget.settling = .milliseconds(50)
            guard case .patched(let report) = quick.apply(victim.patch, to: victim.id) else {
                Issue.record("it was not patched")
                return
            }
            #expect(report.finishing.map(\.function) == ["target_hold"] && report.finishing.first?.coroutineIn != nil)
            #expect(try !victim.isVulnerable)
            #expect(try victim.ask("resume") == "2")
            #expect(quick.finishing(victim.patch, in: victim.id)?.isEmpty == true)
        }

        @Test("suspended inside the patch: it is not reverted", arguments: ways, stacks)
        func suspendedInPatch(_ way: String, _ stack: String) throws {
            let victim = try Victim("coroutines.c", [way, stack])
            #expect(try victim.isVulnerable)
            #expect(applier.apply(victim.patch, to: victim.id).word == "patched")
            #expect(try victim.ask("suspend") == "suspended")
            #expect(try !victim.isVulnerable)
            expectBlocked(impatient.revert(victim.patch, in: victim.id), "patched code")
            #expect(try victim.ask("resume") == "2")
        }

        @Test("suspended elsewhere, after it has been there", arguments: ways, stacks)
        func suspendedOutside(_ way: String, _ stack: String) throws {
            let victim = try Victim("coroutines.c", [way, stack])
            #expect(try victim.ask("through") == "2")
            #expect(applier.apply(victim.patch, to: victim.id).word == "patched")
            #expect(try !victim.isVulnerable)
            #expect(applier.revert(victim.patch, in: victim.id).word == "reverted")
            #expect(try victim.isVulnerable)
        }

        @Test("running inside the function on a stack of its own", arguments: ways + ["assembly"], stacks)
        func running(_ way: String, _ stack: String) throws {
            let victim = try Victim("coroutines.c", [way, stack])
            #expect(try victim.ask("inside") == "inside")
            let word = impatient.apply(victim.patch, to: victim.id).word
            // It has no other thread, and nobody is borrowed on a stack of which nothing is known.
            #expect([#"blocked by ["target_hold"]"#, "no-thread-for-call"].contains(word), "\(word)")
            #expect(try victim.ask("x") == "2")
            #expect(try victim.isVulnerable)
        }

        @Test("switched by code that has no name: old code is left whole, and ends as old code", arguments: stacks)
        func nameless(_ stack: String) throws {
            let victim = try Victim("coroutines.c", flags: ["-DNAMELESS"], ["assembly", stack])
            #expect(try victim.ask("suspend") == "suspended")
            for _ in 0..<3 {
                #expect(applier.apply(victim.patch, to: victim.id).word == "patched")
                #expect(try !victim.isVulnerable)
                #expect(applier.revert(victim.patch, in: victim.id).word == "reverted")
                #expect(try victim.isVulnerable)
            }
            #expect(try victim.ask("resume") == "2")
        }
    }
}
