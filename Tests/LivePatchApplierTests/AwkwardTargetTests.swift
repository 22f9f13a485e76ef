// Processes that make patching hard, each with the behaviour that an operator is promised. The target lives, always.

import ELF
import Foundation
import LivePatch
import LivePatchApplier
import LivePatchBuilder
import ProcessControl
import Testing

@Suite(.serialized, .enabled(if: geteuid() == 0, "patching other processes needs root"))
struct AwkwardTargetTests {
    let toy: Toy
    let applier = Applier(Tracer())

    init() throws { toy = try Toy() }

    private func status(_ v: Victim) throws -> ProcessStatus { try ProcessHandle(v.id).status() }

    @Test("a running process is patched, answers differently, and is reverted")
    func firstPatch() throws {
        let victim = try toy.start()
        #expect(try victim.ask("call 1") == "42")
        #expect(applier.apply(toy.patch, to: victim.id).word == "patched")
        #expect(try victim.ask("call 1") == "43")
        #expect(try victim.ask("say 5000") == "far too many, says the fixed version")
        #expect(try toy.state(of: victim.id) == "patched")
        #expect(applier.apply(toy.patch, to: victim.id).word == "already patched")
        #expect(applier.revert(toy.patch, in: victim.id).word == "reverted")
        #expect(try victim.ask("call 1") == "42")
        #expect(applier.revert(toy.patch, in: victim.id).word == "not patched")
    }

    @Test("no mapping of a patched process is writable and executable")
    func noWritableCode() throws {
        let victim = try toy.start()
        #expect(applier.apply(toy.patch, to: victim.id).word == "patched")
        let maps = try ProcessHandle(victim.id).mappings()
        #expect(!maps.contains { $0.permissions.isSuperset(of: [.write, .execute]) })
    }

    @Test("another build of the library is not affected, and not touched")
    func wrongBuild() throws {
        let other = try Victim(["/usr/bin/env", "LD_LIBRARY_PATH=\(toy.folder)/new", toy.folder + "/victim"])
        // rpath of the program comes before LD_LIBRARY_PATH only as DT_RPATH; gcc here writes DT_RUNPATH.
        try #require(try other.ask("call 1") == "43")
        #expect(applier.apply(toy.patch, to: other.id).word == "not affected")
    }

    @Test("a changed byte in a function that the patch replaces is seen, and nothing is written")
    func alteredBytes() throws {
        let victim = try toy.start()
        guard case .success(let plan) = applier.plan(toy.patch, for: victim.id), let f = plan.guarded.first else {
            Issue.record("no plan")
            return
        }
        let memory = try ProcessHandle(victim.id).memory()
        let last = f.range.upperBound + -1
        let before = try memory.read(at: last, count: 1)
        try memory.write([before[0] ^ 1], at: last)
        #expect(applier.apply(toy.patch, to: victim.id).word == "bytes-differ")
        try memory.write(before, at: last)
        #expect(try toy.state(of: victim.id) == "none")
        #expect(applier.apply(toy.patch, to: victim.id).word == "patched")
    }

    @Test("a header that the process wrote itself is never believed")
    func forgedHeader() throws {
        let victim = try toy.start()
        guard case .success(let plan) = applier.plan(toy.patch, for: victim.id) else {
            Issue.record("no plan")
            return
        }
        var header = plan.header
        header.phase = .complete
        header.isCommitted = true
        _ = try victim.ask("forge " + hexDigits(try header.encode()))
        #expect(!["patched", "retired", "none"].contains(try toy.state(of: victim.id)))
        #expect(applier.apply(toy.patch, to: victim.id).word.hasPrefix("could not tell"))
        #expect(try victim.ask("call 1") == "42")
        // Random bytes behind the magic.
        let noise = try toy.start()
        _ = try noise.ask("forge " + hexDigits(TargetHeader.magic + (0..<600).map { UInt8(truncatingIfNeeded: $0 &* 37) }))
        #expect(try toy.state(of: noise.id) == "header-malformed")
        #expect(applier.apply(toy.patch, to: noise.id).word == "patched")
    }

    @Test("a process that dies in the middle is gone, and nothing hangs")
    func diesInTheMiddle() throws {
        for step in [TransitionStep.mapped, .written] {
            let victim = try toy.start()
            let deadly = Applier(Tracer(), checkpoint: { if $0 == step { victim.child.signal(SIGKILL) } })
            let word = deadly.apply(toy.patch, to: victim.id).word
            #expect(["gone", "memory-unwritable", "process-gone", "unexpected"].contains(word), "\(word)")
            #expect(try victim.child.wait(timeout: .seconds(5)) == .killed(signal: SIGKILL))
        }
    }

    @Test("a process that somebody traces is refused, and patched when it is free")
    func alreadyTraced() throws {
        let victim = try toy.start()
        let word = try Tracer().withStopped(ProcessHandle(victim.id), timeout: .seconds(2)) { _ in
            applier.apply(toy.patch, to: victim.id).word
        }.value
        #expect(word == "already-traced")
        #expect(applier.apply(toy.patch, to: victim.id).word == "patched")
    }

    @Test("a stopped process is patched and reverted, stays stopped, and goes on with the right code")
    func stopped() throws {
        let victim = try toy.start()
        func expectStopped() throws {
            // A released thread is on its way back into the stop for a moment.
            let deadline = ContinuousClock.now + .seconds(10)
            while try status(victim).state != .stopped, ContinuousClock.now < deadline { usleep(1000) }
            #expect(try status(victim).state == .stopped)
        }
        func stop() throws {
            victim.child.signal(SIGSTOP)
            try expectStopped()
        }
        try stop()
        #expect(applier.apply(toy.patch, to: victim.id).word == "patched")
        try expectStopped()
        victim.child.signal(SIGCONT)
        #expect(try victim.ask("call 1") == "43")
        try stop()
        #expect(applier.revert(toy.patch, in: victim.id).word == "reverted")
        try expectStopped()
        victim.child.signal(SIGCONT)
        #expect(try victim.ask("call 1") == "42")
    }

    @Test("a seccomp filter that kills for mmap and mprotect does not kill for the patch, and still kills afterwards")
    func seccompKill() throws {
        let victim = try toy.start()
        #expect(try victim.ask("seccomp") == "0")
        #expect(try status(victim).seccomp == .filter)
        #expect(applier.apply(toy.patch, to: victim.id).word == "patched")
        #expect(try victim.ask("call 1") == "43")
        #expect(applier.revert(toy.patch, in: victim.id).word == "reverted")
        #expect(try victim.ask("call 1") == "42")
        #expect(try status(victim).seccomp == .filter)
        try victim.child.write("forge 00\n")
        #expect(try victim.child.wait(timeout: .seconds(5)) == .killed(signal: SIGSYS))
    }

    @Test("a program whose file was deleted is patched from memory alone")
    func deletedFiles() throws {
        let victim = try toy.start()
        try FileManager.default.moveItem(atPath: toy.folder + "/old/" + Toy.library, toPath: toy.folder + "/moved")
        try FileManager.default.removeItem(atPath: toy.folder + "/moved")
        #expect(applier.apply(toy.patch, to: victim.id).word == "patched")
        #expect(try victim.ask("call 1") == "43")
    }

    @Test("a process in a mount and pid namespace of its own is found and patched from outside")
    func namespaces() throws {
        let shell = try Victim(["unshare", "--mount", "--pid", "--fork", "--mount-proc", toy.folder + "/victim"])
        let scan = try ProcessScan(held: { _ in nil })
        let inner = try #require(
            scan.views.first { $0.status.parent == shell.id && $0.objects.contains { $0.buildID == toy.patch.buildID } })
        #expect(inner.status.namespaceIDs.last == 1)
        #expect(applier.apply(toy.patch, to: inner.id).word == "patched")
        #expect(try shell.ask("call 1") == "43")
        shell.child.closeInput()
    }

    @Test("a static program linked at fixed addresses cannot be compared, and the message says why")
    func staticProgram() throws {
        let path = toy.folder + "/static"
        _ = try ChildProcess.runChecked([
            "gcc", "-O2", "-static", "-o", path, Toy.fixtures + "/victim.c", Toy.fixtures + "/toy.c", "-pthread", "-Wl,--build-id",
        ])
        let bytes = try RegularFile.read(path)
        do {
            _ = try build(old: bytes, new: bytes, BuildContext(object: "static"))
            Issue.record("it was compared")
        } catch {
            #expect(error.code == "position-dependent")
            #expect(!error.remedy.isEmpty)
        }
    }

    @Test("a static position-independent program is patched")
    func staticPIE() throws {
        var builds: [[UInt8]] = []
        for flags in [[], ["-DFIXED"]] {
            _ = try ChildProcess.runChecked(
                [
                    "gcc", "-O2", "-static-pie", "-fPIE", "-o", toy.folder + "/pie\(builds.count)", Toy.fixtures + "/victim.c",
                    Toy.fixtures + "/toy.c", "-pthread", "-Wl,--build-id",
                ] + flags)
            builds.append(try RegularFile.read(toy.folder + "/pie\(builds.count)"))
        }
        let built = try build(old: builds[0], new: builds[1], BuildContext(object: "pie"))
        guard case .patch(let file) = built.outcome else {
            // What gcc makes of the two may differ in ways that cannot be proved: then the refusal is the right answer.
            #expect(!built.manifest.findings.isEmpty)
            return
        }
        let patch = try LivePatch(parsing: file, name: "pie.fother"), victim = try Victim([toy.folder + "/pie0"])
        #expect(try victim.ask("call 1") == "42")
        #expect(applier.apply(patch, to: victim.id).word == "patched")
        #expect(try victim.ask("call 1") == "43")
    }

    @Test("a thread inside a changed function keeps the patch out until it comes back")
    func busyInside() throws {
        let victim = try toy.start()
        #expect(try victim.ask("inside") == "going in")
        usleep(50_000)
        var impatient = Applier(Tracer(), budget: TransitionBudget(attemptsMax: 10, timeout: .seconds(1)))
        impatient.budget.mustSwitchTogether = true
        guard case .blocked(let threads, _) = impatient.apply(toy.patch, to: victim.id) else {
            Issue.record("it was not blocked")
            return
        }
        #expect(threads.map(\.function) == ["wait_inside"])
        #expect(try victim.ask("x") == "11")
        #expect(applier.apply(toy.patch, to: victim.id).word == "patched")
    }
}
