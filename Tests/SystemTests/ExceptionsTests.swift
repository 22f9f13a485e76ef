// C++ exceptions are thrown from, through and caught in patched code, while threads do so all the time.

import ELF
import Foundation
import LivePatch
import LivePatchApplier
import ProcessControl
import Testing

extension SystemTests {
    @Suite struct ExceptionsTests {
        let applier = Applier(Tracer())

        /// What each function of the library does, in the program's words.
        private func answers(_ walker: Walker) throws -> [String] {
            try ["throw", "through", "catch", "foreign", "quiet"].map(walker.ask)
        }
        private static let old = ["200", "300", "-400", "-1000", "100"]
        private static let fixed = ["201", "301", "-401", "-1000", "-50"]

        private func expectHealthyLoad(_ walker: Walker, _ comment: Comment? = nil) throws {
            func load() throws -> [Int] { try walker.ask("load").split(separator: " ").compactMap { Int($0) } }
            let before = try load()
            var after = before
            while after[0] == before[0] { after = try load() }
            #expect(after[1] == 0, comment)
        }

        @Test("exceptions find their handlers in and beyond patched code; a cancelled thread destroys its objects")
        func handlers() throws {
            let walker = try Walker(.cxx())
            #expect(walker.patch.needsUnwinder)
            #expect(try answers(walker) == Self.old)
            #expect(try walker.ask("cancel") == "1")
            #expect(applier.apply(walker.patch, to: walker.id).frames == "registered")
            #expect(try answers(walker) == Self.fixed)
            #expect(try walker.ask("cancel") == "1")
            #expect(applier.revert(walker.patch, in: walker.id).word == "reverted")
            #expect(try answers(walker) == Self.old)
        }

        @Test("threads that throw all the time never miss a handler or a destructor", arguments: [TransitionPath.automatic, .stopAll])
        func underLoad(_ path: TransitionPath) throws {
            let walker = try Walker(.cxx())
            #expect(try walker.ask("threads 3") == "started")
            var applier = applier
            applier.path = path
            for _ in 0..<5 {
                #expect(applier.apply(walker.patch, to: walker.id).frames == "registered")
                #expect(try answers(walker) == Self.fixed)
                try expectHealthyLoad(walker)
                #expect(applier.revert(walker.patch, in: walker.id).word == "reverted")
                #expect(try answers(walker) == Self.old)
                try expectHealthyLoad(walker)
            }
            #expect(try walker.view.patches.count == 1)
        }

        @Test("killed at random moments, every exception finds its handler")
        func killed() async throws {
            let walker = try Walker(.cxx())
            #expect(try walker.ask("threads 2") == "started")
            for round in 0..<KilledAtRandomTests.rounds {
                let delay = UInt32.random(in: 0..<40_000)
                await #expect(processExitsWith: .signal(SIGKILL)) {
                    [
                        path = walker.fixture.patchPath as String, pid = walker.id.value as Int32, delay = delay as UInt32,
                        unmap = (round % 2 == 0) as Bool
                    ] in
                    try transitions(path, pid, microseconds: delay, unmap: unmap)
                }
                let found = try answers(walker)
                #expect(found == Self.old || found == Self.fixed, "round \(round), \(delay) us")
                try expectHealthyLoad(walker, "round \(round), \(delay) us")
            }
            #expect(applier.apply(walker.patch, to: walker.id).isDone)
            #expect(try answers(walker) == Self.fixed)
            #expect(applier.revert(walker.patch, in: walker.id).word == "reverted")
            #expect(try answers(walker) == Self.old)
        }

        @Test("a patch that exceptions pass through is refused where no unwinder can be told of it, and nothing is touched")
        func severalUnwinders() throws {
            let fixture = try FramesFixture.cxx()
            let walker = try Walker(fixture, fixture.decoy)
            let maps = try ProcessHandle(walker.id).mappings()
            #expect(applier.apply(walker.patch, to: walker.id).word == "no-registrable-unwinder")
            guard case .failure(let failure) = applier.plan(walker.patch, for: walker.id) else {
                Issue.record("the dry run does not say so")
                return
            }
            #expect(failure.code == "no-registrable-unwinder")
            #expect(failure.sentence.contains("decoy.so"), "\(failure)")
            #expect(try ProcessHandle(walker.id).mappings() == maps)
            #expect(try answers(walker) == Self.old)
        }
    }
}
