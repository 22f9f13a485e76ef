// Somebody else attaches to a thread at the very moment when it is on its way through a call of ours.

import ELF
import Foundation
import LivePatch
import Synchronization
import Testing

@testable import LivePatchApplier
@testable import ProcessControl

@Suite(.serialized, .enabled(if: geteuid() == 0, "patching other processes needs root"))
struct DebuggerTests {
    @Test("a debugger attaches just when a thread was let go: what the thread may still run stays, and is cleared up later")
    func attachesInTheMiddle() throws {
        let toy = try Toy(), victim = try toy.start()
        #expect(try victim.ask("threads 1") == "started")
        let handle = try ProcessHandle(victim.id), memory = try handle.memory()
        // The one that never waits: it is let go before anybody looks.
        let thread = try #require(try handle.threads().last)
        let page = try #require(FreeGap.find(size: 4096, near: handle.mappings()[0].range, in: handle.mappings()))
        for _ in 0..<500 {
            let debugger = Debugger()
            let attached = OtherThread { debugger.attach(to: thread, of: handle) }
            while !debugger.isWatching { usleep(10) }
            var failure: Failure?
            do {
                try Tracer().perform(
                    [.mapAnonymous(at: page, bytes: 4096, [.read])], in: handle, maps: handle.mappings(), only: thread)
            } catch let f as Failure { failure = f }
            let isAttached = debugger.isAttached
            let rooms = try CallRoom.occupied(in: handle.mappings(), of: memory)
            debugger.leave()
            attached.join()
            if isAttached, failure?.code == "call-timeout" {
                #expect(!rooms.isEmpty)
                // The thread went home by itself, and the next one takes the code away.
                #expect(try victim.ask("call 1") == "42")
                var applier = Applier(Tracer())
                applier.path = .pageSwap
                #expect(applier.apply(toy.patch, to: victim.id).word == "patched")
                #expect(try CallRoom.occupied(in: handle.mappings(), of: memory).isEmpty)
                #expect(try victim.ask("call 1") == "43")
                #expect(try victim.ask("counts").hasSuffix(" 0"))
                return
            }
            // It came too early or too late.
            #expect(failure == nil || failure?.code == "already-traced" || failure?.code == "call-timeout", "\(failure as Any)")
            if try handle.mappings().mapping(at: page) != nil {
                try Tracer().perform([.unmap(page, bytes: 4096)], in: handle, maps: handle.mappings())
            }
        }
        try Test.cancel("nobody came in between in 500 attempts")
    }

    /// Attaches to a thread as soon as somebody who traces it has let it go.
    private final class Debugger: Sendable {
        private let watching = Atomic(false), attached = Atomic(false), leaving = Atomic(false)
        var isWatching: Bool { watching.load(ordering: .acquiring) }
        var isAttached: Bool { attached.load(ordering: .acquiring) }
        func leave() { leaving.store(true, ordering: .releasing) }
        private var isLeaving: Bool { leaving.load(ordering: .acquiring) }

        func attach(to thread: ThreadID, of process: ProcessHandle) {
            let path = "/proc/\(process.id)/task/\(thread)/status"
            watching.store(true, ordering: .releasing)
            while systemText(path)?.contains("TracerPid:\t0\n") ?? false { if isLeaving { return } }
            while (try? seize(thread, of: process, status: nil)) != true { if isLeaving { return } }
            attached.store(true, ordering: .releasing)
            while !isLeaving { usleep(100) }
        }
    }
}
