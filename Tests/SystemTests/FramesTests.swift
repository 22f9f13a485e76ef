// The process's own unwinder goes through patched code: backtrace(3) here, exceptions in ExceptionsTests.

import ELF
import Foundation
import LivePatch
import LivePatchApplier
import MachineCode
import ProcessControl
import Testing

extension ProcessOutcome {
    /// What became of the patch's unwind data, in one word.
    var frames: String {
        guard case .patched(let report) = self else { return word }
        if case .notRegistered(let failure)? = report.frames { return "\(failure)" }
        return report.frames?.word ?? "none"
    }
}

extension SystemTests {
    @Suite struct FramesTests {
        let applier = Applier(Tracer())

        private func depth(_ walker: Walker) throws -> Int { try #require(Int(try walker.ask("depth"))) }

        private func memory(of outcome: ProcessOutcome) -> String {
            guard case .reverted(let report) = outcome else { return outcome.word }
            switch report.memory {
            case .kept(nil): return "kept"
            case .kept(let failure?): return "\(failure)"
            case .unmapped: return "unmapped"
            }
        }

        @Test("backtrace(3) sees as many frames through patched code as through the old code")
        func backtrace() throws {
            let walker = try Walker(.c())
            let before = try depth(walker)
            #expect(before >= 6, "main, two functions of the program, the library's and the C library's two")
            #expect(applier.apply(walker.patch, to: walker.id).frames == "registered")
            #expect(try walker.ask("version") == "2")
            #expect(try depth(walker) == before)
            #expect(try walker.view.frames(of: #require(walker.view.patches.first))?.word == "registered")
            // It stays so while old calls may still be in there.
            #expect(applier.revert(walker.patch, in: walker.id).word == "reverted")
            #expect(try walker.ask("version") == "1")
            #expect(try depth(walker) == before)
        }

        @Test("an unwinder with functions of the same names that do nothing, LLVM's, is not said to have been told")
        func otherUnwinder() throws {
            let fixture = try FramesFixture.c(), library = fixture.folder + "/llvm.so"
            _ = try ChildProcess.runChecked(
                ["gcc", "-DLLVM", "-shared", "-fPIC", "-Wl,-soname,libunwind.so.1", "-o", library, FramesFixture.sources + "/decoy.c"])
            let child = try ChildProcess(["env", "LD_PRELOAD=\(library)", fixture.program], input: .pipe, output: .pipe)
            #expect(try child.readLine() == "ready")
            guard case .patched(let report) = applier.apply(fixture.patch, to: child.id), case .notRegistered(let failure)? = report.frames
            else {
                Issue.record("it is said to be registered")
                return
            }
            #expect(failure.code == "no-registrable-unwinder" && failure.sentence.contains("not libgcc's"), "\(failure)")
            let view = try ProcessView(child.id) { $0 == fixture.patch.id ? fixture.patch : nil }
            #expect(try view.frames(of: #require(view.patches.first))?.word == "not-registered")
        }

        @Test("an unwinder that is loaded after the patch is told by the next apply")
        func loadedLater() throws {
            let walker = try Walker(.c())
            #expect(applier.apply(walker.patch, to: walker.id).frames == "no-unwinder")
            let without = try depth(walker)
            #expect(without < 6, "this test is about frames that are not seen")
            #expect(try walker.view.frames(of: #require(walker.view.patches.first))?.word == "not-registered")
            #expect(applier.apply(walker.patch, to: walker.id).word == "already patched")
            #expect(try depth(walker) >= 6)
            #expect(try walker.view.frames(of: #require(walker.view.patches.first))?.word == "registered")
        }

        @Test("the unwinder forgets what it was told before the memory goes, used or not", arguments: [false, true])
        func unmapped(_ isUsed: Bool) throws {
            let walker = try Walker(.c())
            let before = try depth(walker)
            for _ in 0..<3 {
                #expect(applier.apply(walker.patch, to: walker.id).frames == "registered")
                #expect(try walker.ask("version") == "2")
                if isUsed { #expect(try depth(walker) == before) }
                let memory = memory(of: applier.revert(walker.patch, in: walker.id, unmap: true))
                // A register may still hold an address that the unwinder looked at: then the memory stays.
                #expect(memory == "unmapped" || isUsed && memory.contains("may point there"), "\(memory)")
                #expect(try walker.view.patches.isEmpty == (memory == "unmapped"))
                #expect(try depth(walker) == before)
            }
        }

        @Test("a callback that stays in patched code keeps the memory, and the unwinder's knowledge of it")
        func stays() throws {
            let walker = try Walker(.c())
            let before = try depth(walker)
            #expect(applier.apply(walker.patch, to: walker.id).frames == "registered")
            #expect(try walker.ask("stay") == "inside")
            var hasty = applier
            hasty.budget.timeout = .milliseconds(300)
            _ = hasty.revert(walker.patch, in: walker.id, unmap: true)
            #expect(try !walker.view.patches.isEmpty)
            #expect(try walker.view.frames(of: #require(walker.view.patches.first))?.word == "registered")
            #expect(try walker.ask("go on") == "2")
            #expect(try depth(walker) == before)
        }

        @Test("a stack is understood through patched code: an old word behind it does not block another patch")
        func walkedThrough() throws {
            let walker = try Walker(.c())
            let other = try #require(walker.fixture.other)
            var careful = Applier(Tracer(), held: { [patch = walker.patch] in $0 == patch.id ? patch : nil })
            careful.path = .stopAll
            careful.budget.mustSwitchTogether = true
            careful.budget.timeout = .seconds(2)
            #expect(careful.apply(walker.patch, to: walker.id).word == "patched")
            #expect(try walker.ask("stay") == "inside")
            #expect(careful.apply(other, to: walker.id).word == "patched")
            #expect(try walker.ask("go on") == "2")
            #expect(try walker.ask("other") == "-1")
        }

        @Test("a thread in the middle of a signal handler is not asked")
        func handler() throws {
            let walker = try Walker(.c(), "--in-handler")
            var hasty = applier
            hasty.budget.timeout = .milliseconds(300)
            let outcome = hasty.apply(walker.patch, to: walker.id)
            #expect(outcome.frames.contains("is in a signal handler"), "\(outcome.frames)")
            // The patch can do without, and is in force.
            #expect(try walker.ask("version") == "2")
        }

        @Test("killed at random moments, the process unwinds through the patch whenever the patch is in force")
        func killed() async throws {
            let walker = try Walker(.c())
            let before = try depth(walker)
            for round in 0..<KilledAtRandomTests.rounds {
                let delay = UInt32.random(in: 0..<25_000)
                await #expect(processExitsWith: .signal(SIGKILL)) {
                    [
                        path = walker.fixture.patchPath as String, pid = walker.id.value as Int32, delay = delay as UInt32,
                        unmap = (round % 2 == 0) as Bool
                    ]
                    in try transitions(path, pid, microseconds: delay, unmap: unmap)
                }
                let version = try walker.ask("version"), seen = try depth(walker)
                #expect(version == "1" || version == "2")
                #expect(seen == before, "round \(round), \(delay) us, version \(version)")
            }
            _ = applier.apply(walker.patch, to: walker.id)
            #expect(try walker.ask("version") == "2")
            #expect(try depth(walker) == before)
            #expect(applier.revert(walker.patch, in: walker.id).word == "reverted")
        }
    }
}
