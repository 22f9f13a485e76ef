// The patched object is unloaded, loaded again, or loaded twice.

import ELF
import Foundation
import LivePatch
import LivePatchApplier
import ProcessControl
import Synchronization
import Testing

extension SystemTests {
    @Suite struct LoadingTests {
        let applier = Applier(Tracer())

        private func start() throws -> Victim {
            let folder = try Fixture.get().folder + "/old"
            if !FileManager.default.fileExists(atPath: folder + "/other.so") {
                try FileManager.default.copyItem(atPath: folder + "/libtarget.so", toPath: folder + "/other.so")
            }
            return try Victim("loading.c", [folder])
        }

        @Test("loaded later: not affected before, patched after")
        func loadedLater() throws {
            let victim = try start()
            #expect(applier.apply(victim.patch, to: victim.id).word == "not affected")
            #expect(try victim.ask("load") == "loaded")
            #expect(try victim.isVulnerable)
            #expect(applier.apply(victim.patch, to: victim.id).word == "patched")
            #expect(try !victim.isVulnerable)
        }

        @Test("unloaded after apply and loaded again, there or elsewhere: what is loaded is what counts", arguments: [false, true])
        func loadedAgain(elsewhere: Bool) throws {
            let victim = try start()
            let frames = try victim.ask("trace")
            for _ in 0..<3 {
                #expect(try victim.ask("load") == "loaded")
                #expect(try victim.isVulnerable, "a new copy from the file is the old build")
                #expect(try victim.state != "patched")
                #expect(applier.apply(victim.patch, to: victim.id).word == "patched")
                #expect(try !victim.isVulnerable)
                #expect(applier.apply(victim.patch, to: victim.id).word == "already patched")
                #expect(try victim.ask("trace") == frames, "the unwinder knows each patch once")
                #expect(try victim.ask("unload") == "unloaded")
                #expect(try victim.ask("trace") == frames)
                #expect(try victim.state == "orphaned")
                #expect(applier.apply(victim.patch, to: victim.id).word == "not affected")
                #expect(applier.revert(victim.patch, in: victim.id).word == "not patched")
                if elsewhere { #expect(try victim.ask("occupy") == "occupied") }
            }
            #expect(try victim.ask("load") == "loaded")
            #expect(applier.apply(victim.patch, to: victim.id).word == "patched")
            #expect(applier.revert(victim.patch, in: victim.id).word == "reverted")
            #expect(try victim.isVulnerable)
        }

        @Test(
            "unloaded in the middle of a transition, and something else mapped in its place: which is not touched",
            arguments: [TransitionStep.mapped, .written, .spareMapped, .spareWritten], [TransitionPath.automatic, .pageSwap])
        func unloadedInTheMiddle(_ step: TransitionStep, _ path: TransitionPath) throws {
            let victim = try start()
            #expect(try victim.ask("load") == "loaded")
            let isUnloaded = Mutex(false)
            var disturbed = Applier(
                Tracer(),
                checkpoint: {
                    guard $0 == step else { return }
                    isUnloaded.withLock { $0 = true }
                    _ = try? victim.ask("unload")
                    _ = try? victim.ask("occupy")
                })
            disturbed.path = path
            let outcome = disturbed.apply(victim.patch, to: victim.id)
            guard isUnloaded.withLock({ $0 }) else {
                // What can be unloaded is not patched by pages that are put in place, and those steps do not come.
                #expect(["patched", "page-swap"].contains(outcome.word))
                return
            }
            #expect(!outcome.isDone, "\(outcome)")
            #expect(try victim.ask("intact") == "intact")
            #expect(try victim.ask("load") == "loaded")
            #expect(try victim.isVulnerable)
            #expect(applier.apply(victim.patch, to: victim.id).word == "patched")
            #expect(try !victim.isVulnerable)
        }

        @Test("two copies at once: both or neither", arguments: ["copy", "namespace"])
        func twice(_ how: String) throws {
            let victim = try start()
            #expect(try victim.ask("load") == "loaded")
            #expect(try victim.ask(how) == "loaded")
            #expect(applier.apply(victim.patch, to: victim.id).word == "mapped-twice")
            #expect(try victim.isVulnerable)
            #expect(try victim.ask("second 200") == "601")
        }

        @Test("a second copy that is loaded after the first was patched is not taken for patched", arguments: ["copy", "namespace"])
        func secondLater(_ how: String) throws {
            let victim = try start(), patch = victim.patch
            func view() throws -> ProcessView { try ProcessView(victim.id) { $0 == patch.id ? patch : nil } }
            #expect(try victim.ask("load") == "loaded")
            #expect(applier.apply(patch, to: victim.id).word == "patched")
            #expect(try view().copies(without: patch) == 0)
            #expect(try victim.ask(how) == "loaded")
            #expect(try victim.ask("second 200") == "601")
            #expect(try view().copies(without: patch) == 1)
            #expect(applier.apply(patch, to: victim.id).word == "mapped-twice")
            #expect(try !victim.isVulnerable)
            #expect(applier.revert(patch, in: victim.id).word == "reverted")
            #expect(try victim.isVulnerable)
        }
    }
}
