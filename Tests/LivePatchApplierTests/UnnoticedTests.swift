// What a process must not notice: no wrong result, no interrupted wait, no memory that grows; and a real signal that comes
// while it stands still is delivered.

import ELF
import Foundation
import LivePatch
import LivePatchApplier
import ProcessControl
import Testing

@Suite(.serialized, .enabled(if: geteuid() == 0, "patching other processes needs root"))
struct UnnoticedTests {
    let toy: Toy
    let applier = Applier(Tracer())

    init() throws { toy = try Toy() }

    @Test("200 cycles under ten threads: every answer is the old or the new one, and one mapping serves them all")
    func cycles() throws {
        let victim = try toy.start()
        #expect(try victim.ask("threads 9") == "started")
        var attempts = 0
        for _ in 0..<200 {
            guard case .patched(let report) = applier.apply(toy.patch, to: victim.id),
                case .reverted = applier.revert(toy.patch, in: victim.id)
            else {
                Issue.record("a cycle failed")
                return
            }
            attempts += report.attempts
        }
        let counts = try victim.ask("counts").split(separator: " ").compactMap { Int($0) }
        #expect(counts.count == 2 && counts[0] > 1000 && counts[1] == 0, "\(counts)")
        #expect(try ProcessView(victim.id, held: { _ in toy.patch }).patches.count == 1)
        // The call that mapped it left nothing in the slack of a text segment.
        #expect(try victim.ask("call 1") == "42")
    }

    @Test("a string that the new code returned is still there after revert")
    func heldString() throws {
        let victim = try toy.start()
        #expect(applier.apply(toy.patch, to: victim.id).word == "patched")
        #expect(try victim.ask("hold 5000") == "held")
        #expect(applier.revert(toy.patch, in: victim.id).word == "reverted")
        #expect(try victim.ask("held") == "far too many, says the fixed version")
        #expect(try victim.ask("say 5000") == "too many")
    }

    @Test("epoll_wait is not interrupted by a stop, and its time-out is its own")
    func epoll() throws {
        let victim = try toy.start()
        #expect(try victim.ask("epoll 1500") == "waiting")
        usleep(100_000)
        #expect(applier.apply(toy.patch, to: victim.id).word == "patched")
        #expect(applier.revert(toy.patch, in: victim.id).word == "reverted")
        #expect(try victim.child.readLine(timeout: .seconds(20)) == "0 -")
    }

    @Test("a signal that comes while everything stands still interrupts epoll_wait and is handled once")
    func signalDuringTheStop() throws {
        let victim = try toy.start()
        for round in 1...5 {
            #expect(try victim.ask("epoll 20000") == "waiting")
            usleep(50_000)
            let sender = Applier(Tracer(), checkpoint: { if $0 == .stopped { victim.child.signal(SIGTERM) } })
            let word = round % 2 == 1 ? sender.apply(toy.patch, to: victim.id).word : sender.revert(toy.patch, in: victim.id).word
            #expect(word == (round % 2 == 1 ? "patched" : "reverted"))
            #expect(try victim.child.readLine(timeout: .seconds(20)) == "-1 EINTR")
            #expect(try victim.ask("signalled") == "\(round)")
        }
    }

    @Test("data of the patch lives on from one apply to the next")
    func keptData() throws {
        let victim = try toy.start()
        for _ in 0..<3 {
            #expect(applier.apply(toy.patch, to: victim.id).word == "patched")
            #expect(try victim.ask("call 1") == "43")
            #expect(applier.revert(toy.patch, in: victim.id).word == "reverted")
        }
        let patches = try ProcessView(victim.id, held: { _ in toy.patch }).patches
        let plan = try #require(patches.first?.plan)
        // `calls` is the only new data: three calls, counted by three applications of one mapping.
        let data = try ProcessHandle(victim.id).memory().read(at: plan.base + plan.layout.data.lowerBound, count: plan.layout.data.count)
        #expect(data.filter { $0 != 0 } == [3])
    }

    @Test("stacks that are read beside the stopping of other threads are read no less", arguments: [true, false])
    func secondProcessor(isUsed: Bool) throws {
        let victim = try toy.start()
        #expect(try victim.ask("threads 9") == "started")
        var applier = Applier(Tracer())
        applier.usesSecondProcessor = isUsed
        for _ in 0..<20 {
            #expect(applier.apply(toy.patch, to: victim.id).word == "patched")
            #expect(applier.revert(toy.patch, in: victim.id).word == "reverted")
        }
        #expect(try victim.ask("counts").hasSuffix(" 0"))
        // Who is inside is found as well.
        #expect(try victim.ask("inside") == "going in")
        usleep(50_000)
        applier.budget = TransitionBudget(attemptsMax: 3, timeout: .seconds(1))
        applier.budget.mustSwitchTogether = true
        guard case .blocked(let threads, _) = applier.apply(toy.patch, to: victim.id) else {
            Issue.record("it was not blocked")
            return
        }
        #expect(threads.contains { $0.function == "wait_inside" && $0.waitsIn == "read" })
        #expect(try victim.ask("x") == "11")
    }
}
