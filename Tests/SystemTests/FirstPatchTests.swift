// Start here: compile a program, run it, patch it, see its answers change, revert.

import LivePatchApplier
import ProcessControl
import Testing

extension SystemTests {
    @Suite struct FirstPatchTests {
        @Test("a running process is patched, answers differently, and is reverted")
        func theAnswerChangesAndChangesBack() throws {
            let victim = try Victim()
            let applier = Applier(Tracer())
            #expect(try victim.isVulnerable)

            #expect(applier.apply(victim.patch, to: victim.id).word == "patched")
            #expect(try !victim.isVulnerable)
            #expect(try victim.state == "patched")

            #expect(applier.revert(victim.patch, in: victim.id).word == "reverted")
            #expect(try victim.isVulnerable)
            #expect(try victim.state == "retired")
        }

        @Test("new code goes on using the old data")
        func oldDataIsShared() throws {
            let victim = try Victim()
            let before = try #require(Int(try victim.ask("calls")))
            #expect(Applier(Tracer()).apply(victim.patch, to: victim.id).word == "patched")
            _ = try victim.ask("verdict 5")
            #expect(try victim.ask("calls") == "\(before + 1)")
        }
    }
}
