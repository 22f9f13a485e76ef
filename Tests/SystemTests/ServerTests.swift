// Servers under load, and processes with very many threads.

import ELF
import Foundation
import LivePatch
import LivePatchApplier
import ProcessControl
import Testing

extension SystemTests {
    @Suite struct ServerTests {
        let applier = Applier(Tracer())

        @Test("a server under load answers every request, old or new", arguments: ["epoll", "io_uring"], [false, true])
        func underLoad(_ kind: String, swapping: Bool) throws {
            var applier = applier
            applier.path = swapping ? .pageSwap : .stopAll
            let victim = try StopTests.supported({ try Victim("server.c", [kind]) })
            for _ in 0..<20 {
                #expect(applier.apply(victim.patch, to: victim.id).word == "patched")
                #expect(try !victim.isVulnerable)
                #expect(applier.revert(victim.patch, in: victim.id).word == "reverted")
                #expect(try victim.isVulnerable)
            }
            let before = try victim.load
            try victim.wait { try victim.load[0] > before[0] + 100 }
            #expect(try victim.load.dropFirst() == [0, 0], "asked, wrong, interrupted")
        }

        @Test("a thousand threads asleep, none of which wakes up")
        func thousandThreads() throws {
            let victim = try Victim("flow.c", ["longjmp", "sleepers", "1000"])
            for _ in 0..<2 {
                #expect(applier.apply(victim.patch, to: victim.id).word == "patched")
                #expect(try !victim.isVulnerable)
                #expect(applier.revert(victim.patch, in: victim.id).word == "reverted")
                #expect(try victim.isVulnerable)
            }
            #expect(try victim.load[1] == 0)
            #expect(try victim.handle.status().threadCount == 1002)
            // Who sleeps and is not borrowed is not even woken to be looked at.
            func turns() throws -> [ThreadID: String] {
                try Dictionary(
                    uniqueKeysWithValues: victim.handle.threads().map {
                        ($0, try String(contentsOfFile: "/proc/\(victim.id)/task/\($0)/schedstat", encoding: .utf8))
                    })
            }
            let before = try turns()
            #expect(applier.apply(victim.patch, to: victim.id).word == "patched")
            let after = try turns()
            #expect(before.count { after[$0.key] != $0.value } < 100)
        }
    }
}
