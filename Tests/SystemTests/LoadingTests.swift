// The patched object is unloaded, loaded again, or loaded twice.

import ELF
import Foundation
import Glibc
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

        /// The old code or the new in both copies; the failure `half-patched` otherwise.
        private func areVulnerable(_ victim: Victim) throws -> Bool {
            let first = try victim.isVulnerable, second = try victim.ask("second 200") == "601"
            guard first == second else { throw Failure("half-patched", "first \(first), second \(second)") }
            return first
        }
        private func view(_ victim: Victim) throws -> ProcessView {
            try ProcessView(victim.id) { $0 == victim.patch.id ? victim.patch : nil }
        }
        private func startTwice(_ how: String) throws -> Victim {
            let victim = try start()
            #expect(try victim.ask("load") == "loaded")
            #expect(try victim.ask(how) == "loaded")
            return victim
        }

        @Test("two copies at once: both are patched at one moment, ps tells of both, both are reverted", arguments: ["copy", "namespace"])
        func twice(_ how: String) throws {
            let victim = try startTwice(how), patch = victim.patch
            #expect(try areVulnerable(victim))
            #expect(try applier.plans(patch, for: victim.id).get().count == 2)
            var mappings: [Int] = []
            for _ in 0..<5 {
                guard case .patched(let report) = applier.apply(patch, to: victim.id) else {
                    Issue.record("not patched")
                    return
                }
                #expect(report.copies == 2 && report.attempts >= 1 && report.pause > .zero)
                #expect(try !areVulnerable(victim))
                let patches = try view(victim).patches
                #expect(patches.count == 2 && patches.allSatisfy { if case .patched = $0.state { true } else { false } })
                #expect(try view(victim).copies(without: patch) == 0)
                #expect(applier.apply(patch, to: victim.id).word == "already patched")
                #expect(applier.revert(patch, in: victim.id).word == "reverted")
                #expect(try areVulnerable(victim))
                #expect(applier.revert(patch, in: victim.id).word == "not patched")
                mappings.append(try victim.handle.mappings().count)
            }
            #expect(mappings.first == mappings.last)
            #expect(applier.apply(patch, to: victim.id).word == "patched")
            #expect(applier.revert(patch, in: victim.id, unmap: true).word == "reverted")
            #expect(try areVulnerable(victim))
        }

        @Test("one of two copies that something else has changed keeps the patch out of both", arguments: ["copy", "namespace"])
        func oneAltered(_ how: String) throws {
            let victim = try startTwice(how), memory = try victim.handle.memory()
            for plan in try applier.plans(victim.patch, for: victim.id).get() {
                let maps = try victim.handle.mappings()
                let place = try #require(plan.guarded.first).range.lowerBound + 1
                let before = try memory.read(at: place, count: 1)
                try memory.write([before[0] ^ 1], at: place)
                #expect(applier.apply(victim.patch, to: victim.id).word == "bytes-differ")
                try memory.write(before, at: place)
                #expect(try victim.handle.mappings().count == maps.count)
                #expect(try areVulnerable(victim))
            }
            #expect(applier.apply(victim.patch, to: victim.id).word == "patched")
            #expect(try !areVulnerable(victim))
        }

        @Test("killed between the commits of two copies: each runs the old code or the new, and the next one finishes both")
        func killedBetween() async throws {
            for commits in 1...2 {
                for reverting in [false, true] {
                    let victim = try startTwice("namespace")
                    if reverting { #expect(applier.apply(victim.patch, to: victim.id).word == "patched") }
                    await #expect(processExitsWith: .signal(SIGKILL)) {
                        [
                            path = victim.fixture.patchPath as String, pid = victim.id.value as Int32, commits = commits as Int,
                            reverting = reverting as Bool
                        ] in
                        let patch = try LivePatch(parsing: RegularFile.read(path), name: path), seen = Mutex(0)
                        let applier = Applier(
                            Tracer(),
                            checkpoint: {
                                guard $0 == .committed else { return }
                                if seen.withLock({
                                    $0 += 1; return $0
                                }) == commits {
                                    kill(getpid(), SIGKILL)
                                }
                            })
                        _ = reverting ? applier.revert(patch, in: ProcessID(pid)) : applier.apply(patch, to: ProcessID(pid))
                    }
                    #expect(["601", "-1"].contains(try victim.ask("second 200")))
                    _ = try victim.isVulnerable
                    #expect(["patched", "already patched"].contains(applier.apply(victim.patch, to: victim.id).word))
                    #expect(try !areVulnerable(victim))
                    #expect(applier.revert(victim.patch, in: victim.id).word == "reverted")
                    #expect(try areVulnerable(victim))
                }
            }
        }

        @Test(
            "a second copy that is loaded after the first was patched is not taken for patched, and patched next",
            arguments: ["copy", "namespace"])
        func secondLater(_ how: String) throws {
            let victim = try start(), patch = victim.patch
            #expect(try victim.ask("load") == "loaded")
            #expect(applier.apply(patch, to: victim.id).word == "patched")
            #expect(try view(victim).copies(without: patch) == 0)
            #expect(try victim.ask(how) == "loaded")
            #expect(try victim.ask("second 200") == "601")
            #expect(try view(victim).copies(without: patch) == 1)
            #expect(applier.apply(patch, to: victim.id).word == "patched")
            #expect(try !areVulnerable(victim))
            #expect(try view(victim).copies(without: patch) == 0)
            #expect(applier.revert(patch, in: victim.id).word == "reverted")
            #expect(try areVulnerable(victim))
        }
    }
}
