// The path without a stop: pages are put in place under running threads, one store commits, and old calls end as they began.

import ELF
import Foundation
import LivePatch
import LivePatchApplier
import Synchronization
import Testing

@testable import ProcessControl

@Suite(.serialized, .enabled(if: geteuid() == 0, "patching other processes needs root"))
struct PageSwapTests {
    let toy: Toy
    var applier = Applier(Tracer())

    init() throws {
        toy = try Toy()
        applier.path = .pageSwap
    }

    @Test("many times over under hot callers: never a wrong answer, never a stop of all, and nothing that grows")
    func cycles() throws {
        let victim = try toy.start()
        #expect(try victim.ask("threads 8") == "started")
        var mappings: [Int] = []
        for _ in 0..<100 {
            guard case .patched(let report) = applier.apply(toy.patch, to: victim.id) else {
                Issue.record("\(applier.apply(toy.patch, to: victim.id))")
                return
            }
            #expect(report.pause == .zero && report.finishing.isEmpty)
            #expect(try victim.ask("call 1") == "43")
            #expect(try victim.ask("say 5") == "the fixed version")
            let outcome = applier.revert(toy.patch, in: victim.id)
            #expect(outcome.word == "reverted", "\(outcome)")
            #expect(try victim.ask("call 1") == "42")
            #expect(try victim.ask("say 5") == "the old version")
            mappings.append(try ProcessHandle(victim.id).mappings().count)
        }
        #expect(mappings[1] == mappings[99])
        #expect(try victim.ask("counts").hasSuffix(" 0"))
    }

    @Test("a thread inside an old function does not keep it out, and is named until it has come back")
    func busyInside() throws {
        let victim = try toy.start()
        #expect(try victim.ask("inside") == "going in")
        usleep(50_000)
        var impatient = applier
        impatient.budget.settling = .zero
        guard case .patched(let report) = impatient.apply(toy.patch, to: victim.id) else {
            Issue.record("not patched")
            return
        }
        #expect(report.finishing.map(\.function) == ["wait_inside"])
        #expect(report.finishing.first?.waitsIn == "read")
        #expect(try header(victim)?.isEffective == false)
        #expect(impatient.finishing(toy.patch, in: victim.id)?.count == 1)
        // Asked again it says the same, not that all is well.
        guard case .patched(let again) = impatient.apply(toy.patch, to: victim.id) else {
            Issue.record("the old call was forgotten")
            return
        }
        #expect(again.finishing.map(\.function) == ["wait_inside"])
        // The call that had begun ends as it began; the next one is new.
        #expect(try victim.ask("x") == "11")
        #expect(impatient.finishing(toy.patch, in: victim.id)?.isEmpty == true)
        #expect(try header(victim)?.isEffective == true)
        #expect(try victim.ask("inside") == "going in")
        #expect(try victim.ask("x") == "21")
    }

    @Test("a main loop that never returns gives way to the stop of all threads only for later calls")
    func stopAllParts() throws {
        let victim = try toy.start()
        #expect(try victim.ask("inside") == "going in")
        usleep(50_000)
        var patient = Applier(Tracer())
        patient.budget.settling = .zero
        patient.budget.togetherAttemptsMax = 3
        guard case .patched(let report) = patient.apply(toy.patch, to: victim.id) else {
            Issue.record("not patched")
            return
        }
        #expect(report.attempts == 4)
        #expect(report.finishing.map(\.function) == ["wait_inside"])
        #expect(try victim.ask("x") == "11")
        #expect(try victim.ask("call 1") == "43")
        #expect(patient.finishing(toy.patch, in: victim.id)?.isEmpty == true)
    }

    @Test("a page that holds somebody's breakpoint is not copied")
    func altered() throws {
        let victim = try toy.start()
        let plan = try applier.plan(toy.patch, for: victim.id).get()
        let page = try #require(plan.sitePages.first)
        let memory = try ProcessHandle(victim.id).memory()
        // Somewhere behind the functions, in the slack of the page.
        let place = page + 4000
        try memory.write([0xcc], at: place)
        let outcome = applier.apply(toy.patch, to: victim.id)
        #expect(outcome.word == "page-swap", "\(outcome)")
        #expect(try victim.ask("call 1") == "42")
        #expect(Applier(Tracer()).apply(toy.patch, to: victim.id).word == "patched")
        #expect(try victim.ask("call 1") == "43")
    }

    @Test("code that the kernel has sealed stays in its place, and is patched in a stop")
    func sealed() throws {
        let victim = try toy.start()
        guard try victim.ask("seal") == "0" else { try Test.cancel("this kernel, older than 6.10, seals nothing") }
        #expect(try victim.ask("threads 40") == "started")
        let before = try ProcessHandle(victim.id).mappings().count
        #expect(applier.apply(toy.patch, to: victim.id).word == "call-failed")
        #expect(try victim.ask("call 1") == "42")
        // Nothing is left of the attempt but the patch's own mapping, which is taken away too.
        #expect(try ProcessHandle(victim.id).mappings().count == before)
        let automatic = Applier(Tracer())
        guard case .patched(let report) = automatic.apply(toy.patch, to: victim.id) else {
            Issue.record("not patched")
            return
        }
        #expect(report.pause > .zero)
        #expect(try victim.ask("call 1") == "43")
        #expect(try victim.ask("counts").hasSuffix(" 0"))
    }

    @Test("a page that has gone when it is to be put in place: the kernel refuses, nothing has changed, and a stop does it")
    func movedAway() throws {
        let victim = try toy.start()
        let before = try ProcessHandle(victim.id).mappings().count
        var disturbed = Applier(
            Tracer(),
            checkpoint: {
                guard $0 == .spareWritten, let handle = try? ProcessHandle(victim.id), let maps = try? handle.mappings(),
                    let plan = try? ProcessView(victim.id, held: { _ in toy.patch }).patches.first?.plan
                else { return }
                try? Tracer().perform([.unmap(plan.spare, bytes: plan.sitePages.count * 4096)], in: handle, maps: maps)
            })
        disturbed.path = .pageSwap
        #expect(disturbed.apply(toy.patch, to: victim.id).word == "call-failed")
        #expect(try victim.ask("call 1") == "42")
        #expect(try ProcessHandle(victim.id).mappings().count == before)
        disturbed.path = .stopAll
        #expect(disturbed.apply(toy.patch, to: victim.id).word == "patched")
        #expect(try victim.ask("call 1") == "43")
    }

    @Test(
        "the kernel refuses a later one of several pages: all of the patch or nothing, and nothing is left of the attempt",
        arguments: [TransitionPath.pageSwap, .automatic])
    func halfWay(_ path: TransitionPath) throws {
        let spread = try Toy(["-DSPREAD", "-fno-toplevel-reorder"])
        for isApply in [true, false] {
            // How many mappings a move takes is the kernel's affair: more and more are left, until it refuses a later one only.
            var halves = 0
            for left in 5...12 where halves == 0 {
                let victim = try spread.start()
                // Under automatic only processes of many threads are tried.
                #expect(try victim.ask("threads 40") == "started")
                func isNew() throws -> Bool {
                    let answers = (try victim.ask("call 1"), try victim.ask("say 5"))
                    switch answers {
                    case ("42", "the old version"): return false
                    case ("43", "the fixed version"): return true
                    default: throw Failure("half-patched", "it answers \(answers)")
                    }
                }
                var undisturbed = Applier(Tracer())
                undisturbed.path = .stopAll
                if !isApply { #expect(undisturbed.apply(spread.patch, to: victim.id).word == "patched") }
                let before = try ProcessHandle(victim.id).mappings().count
                let wasHalf = Seen()
                var disturbed = Applier(
                    Tracer(),
                    checkpoint: {
                        if $0 == .spareWritten { _ = try? victim.ask("fill \(left)") }
                        if $0 == .swappedInPart { wasHalf.add() }
                    })
                disturbed.path = path
                if isApply { #expect(try applier.plan(spread.patch, for: victim.id).get().sitePages.count == 3) }
                let outcome = isApply ? disturbed.apply(spread.patch, to: victim.id) : disturbed.revert(spread.patch, in: victim.id)
                let isDone = ["patched", "reverted"].contains(outcome.word)
                #expect(isDone || outcome.word == "call-failed", "\(left): \(outcome)")
                #expect(try isNew() == (isApply == isDone), "\(left): \(outcome)")
                if wasHalf.count > 0 {
                    halves += 1
                    // A revert was in force with its first store; an apply can still be declined.
                    #expect(isDone == (!isApply || path == .automatic), "\(left): \(outcome)")
                }
                #expect(try victim.ask("drain") == "0")
                let state = try spread.state(of: victim.id)
                #expect(state == (isApply == isDone ? "patched" : isApply ? "none" : "retired"), "\(left): \(outcome), \(state)")
                if isApply, !isDone { #expect(try ProcessHandle(victim.id).mappings().count <= before + 8) }
                #expect(undisturbed.revert(spread.patch, in: victim.id).word == (isApply == isDone ? "reverted" : "not patched"))
                #expect(try !isNew())
                #expect(undisturbed.apply(spread.patch, to: victim.id).word == "patched")
                #expect(try isNew())
                #expect(try victim.ask("counts").hasSuffix(" 0"))
            }
            #expect(halves == 1)
        }
    }

    private final class Seen: Sendable {
        private let number = Atomic(0)
        var count: Int { number.load(ordering: .relaxed) }
        func add() { number.add(1, ordering: .relaxed) }
    }

    @Test("what is left of a call that is over is taken away, and does not keep pages out")
    func leftOver() throws {
        let victim = try toy.start()
        let handle = try ProcessHandle(victim.id), memory = try handle.memory(), maps = try handle.mappings()
        let stub = CallStub([.unmap(RuntimeAddress(0x1000), bytes: 4096)])
        let room = try #require(try CallRoom.find(stub.bytes.count, in: maps, of: memory))
        try memory.write(stub.bytes, at: room)
        #expect(try CallRoom.occupied(in: maps, of: memory).map(\.lowerBound) == [room])
        let outcome = applier.apply(toy.patch, to: victim.id)
        #expect(outcome.word == "patched", "\(outcome)")
        #expect(try CallRoom.occupied(in: maps, of: memory).isEmpty)
        #expect(try victim.ask("call 1") == "43")
    }

    @Test("both paths undo what the other did")
    func mixed() throws {
        let victim = try toy.start(), stopAll = Applier(Tracer())
        #expect(try victim.ask("threads 8") == "started")
        for _ in 0..<10 {
            #expect(applier.apply(toy.patch, to: victim.id).word == "patched")
            #expect(stopAll.apply(toy.patch, to: victim.id).word == "already patched")
            #expect(stopAll.revert(toy.patch, in: victim.id).word == "reverted")
            #expect(stopAll.apply(toy.patch, to: victim.id).word == "patched")
            #expect(applier.revert(toy.patch, in: victim.id).word == "reverted")
        }
        let outcome = stopAll.revert(toy.patch, in: victim.id, unmap: true)
        #expect(outcome.word == "reverted")
        #expect(try victim.ask("call 1") == "42")
        #expect(try victim.ask("counts").hasSuffix(" 0"))
    }

    @Test("who finds a process claimed by another waits, and says so when it takes too long")
    func claimed() throws {
        let victim = try toy.start()
        let other = try ProcessHandle(victim.id)
        try other.claim(patience: .zero)
        var impatient = applier
        impatient.budget.timeout = .milliseconds(50)
        #expect(impatient.apply(toy.patch, to: victim.id).word == "busy")
        withExtendedLifetime(other) {}
    }

    private func header(_ victim: Victim) throws -> TargetHeader? {
        try ProcessView(victim.id, held: { _ in toy.patch }).patches.first?.header
    }
}
