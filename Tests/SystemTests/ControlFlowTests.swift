// Control that leaves the patched functions by other ways than a return, and calls that nest.

import ELF
import Foundation
import LivePatch
import LivePatchApplier
import ProcessControl
import Testing

extension SystemTests {
    @Suite struct ControlFlowTests {
        let applier = Applier(Tracer())
        let impatient = Applier(Tracer(), budget: TransitionBudget(attemptsMax: 5, timeout: .milliseconds(300)))

        fileprivate struct Path: CustomTestStringConvertible, Sendable {
            static let all = [Path(path: .automatic, testDescription: "automatic"), Path(path: .pageSwap, testDescription: "page swap")]
            var path: TransitionPath
            var testDescription: String
        }

        @Test(
            "ten patches under a load that jumps out, recurses, is cancelled, is interrupted by handlers, forks",
            arguments: ["longjmp", "recursion", "cancel", "handler", "fork", "spawn"], Path.all)
        fileprivate func load(_ what: String, _ path: Path) throws {
            let victim = try Victim("flow.c", [what])
            var applier = applier
            applier.path = path.path
            // While a child of posix_spawn is on its way to its program, no page is swapped, and there is always one: most tries are
            // declined.
            func transition(_ wanted: String, _ transition: () -> ProcessOutcome) throws {
                for _ in 0..<5000 {
                    let word = transition().word
                    if what == "spawn", word == "page-swap" || word == "memory-shared" { continue }
                    #expect(word == wanted)
                    return
                }
                Issue.record("never \(wanted)")
            }
            for _ in 0..<10 {
                try transition("patched") { applier.apply(victim.patch, to: victim.id) }
                #expect(try !victim.isVulnerable)
                try transition("reverted") { applier.revert(victim.patch, in: victim.id) }
                #expect(try victim.isVulnerable)
            }
            let before = try victim.load
            try victim.wait { try victim.load[0] > before[0] }
            #expect(try victim.load[1] == 0)
        }

        @Test("a thread cancelled in the old function lets the patch in", arguments: ["deferred", "async"])
        func cancelledInOld(_ kind: String) throws {
            let victim = try Victim("flow.c", [])
            #expect(try victim.ask("enter \(kind)") == "inside")
            #expect(impatient.apply(victim.patch, to: victim.id).word == #"blocked by ["target_hold"]"#)
            #expect(try victim.ask("cancel") == "1 1 1")
            #expect(applier.apply(victim.patch, to: victim.id).word == "patched")
            #expect(try !victim.isVulnerable)
        }

        @Test("a thread cancelled in the new function runs its cleanup handlers, outer ones too", arguments: ["deferred", "async"])
        func cancelledInNew(_ kind: String) throws {
            let victim = try Victim("flow.c", [])
            #expect(applier.apply(victim.patch, to: victim.id).word == "patched")
            #expect(try victim.ask("enter \(kind)") == "inside")
            #expect(impatient.revert(victim.patch, in: victim.id).word == #"blocked by ["patched code"]"#)
            #expect(try victim.ask("cancel") == "1 1 1")
            #expect(applier.revert(victim.patch, in: victim.id).word == "reverted")
            #expect(try victim.isVulnerable)
        }
    }
}
