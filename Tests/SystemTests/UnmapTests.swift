// A reverted patch's memory goes when nothing can point there, and stays otherwise.

import ELF
import LivePatchApplier
import ProcessControl
import Testing

extension SystemTests {
    @Suite struct UnmapTests {
        let applier = Applier(Tracer())

        private func memory(_ outcome: ProcessOutcome) -> String {
            guard case .reverted(let report) = outcome else { return outcome.word }
            switch report.memory {
            case .kept(nil): return "kept"
            case .kept(let failure?): return failure.code
            case .unmapped: return "unmapped"
            }
        }

        @Test("memory that nothing points to is unmapped, in the same breath or later")
        func unmapped() throws {
            let victim = try Victim()
            let before = try victim.handle.mappings().count
            #expect(applier.apply(victim.patch, to: victim.id).word == "patched")
            #expect(try !victim.isVulnerable)
            #expect(memory(applier.revert(victim.patch, in: victim.id, unmap: true)) == "unmapped")
            #expect(try victim.state == "none")
            #expect(try victim.isVulnerable)

            #expect(applier.apply(victim.patch, to: victim.id).word == "patched")
            #expect(try !victim.isVulnerable)
            #expect(memory(applier.revert(victim.patch, in: victim.id)) == "kept")
            #expect(try victim.state == "retired")
            #expect(memory(applier.revert(victim.patch, in: victim.id, unmap: true)) == "unmapped")
            #expect(try victim.isVulnerable)
            // An un-shared page of the library's code has become a mapping of its own at most.
            #expect(try victim.handle.mappings().count <= before + 4)
        }

        @Test("a pointer to a string of the patch keeps its memory until it is forgotten")
        func heldString() throws {
            let victim = try Victim()
            #expect(applier.apply(victim.patch, to: victim.id).word == "patched")
            #expect(try victim.ask("keep") == "kept")
            #expect(memory(applier.revert(victim.patch, in: victim.id, unmap: true)) == "memory-in-use")
            #expect(try victim.ask("kept") == "greetings from the fixed build")
            #expect(try victim.state == "retired")
            #expect(try victim.ask("forget") == "forgotten")
            // Whatever else held it goes with ordinary work.
            #expect(try victim.isVulnerable)
            #expect(memory(applier.revert(victim.patch, in: victim.id, unmap: true)) == "unmapped")
            #expect(try victim.isVulnerable)
        }

        @Test("ten threads under load see none of thirty patches come and go, memory included")
        func cycles() throws {
            let victim = try Victim("--threads", "10")
            var unmapped = 0
            for _ in 0..<30 {
                #expect(applier.apply(victim.patch, to: victim.id).word == "patched")
                let word = memory(applier.revert(victim.patch, in: victim.id, unmap: true))
                if word == "unmapped" { unmapped += 1 } else { #expect(word == "memory-in-use") }
            }
            #expect(unmapped > 0)
            try victim.expectHealthyLoad()
            #expect(try victim.isVulnerable)
        }
    }
}
