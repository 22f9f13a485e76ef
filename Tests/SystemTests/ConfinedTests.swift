// Processes with other rights, another view of the system, or a way of being linked that makes them different.

import ELF
import Foundation
import LivePatch
import LivePatchApplier
import Synchronization
import Testing

@testable import ProcessControl

extension SystemTests {
    @Suite struct ConfinedTests {
        let applier = Applier(Tracer())
        let impatient = Applier(Tracer(), budget: TransitionBudget(attemptsMax: 5, timeout: .milliseconds(300)))

        private func patchAndRevert(_ victim: Victim, _ id: ProcessID? = nil) throws {
            let id = id ?? victim.id
            #expect(try victim.isVulnerable)
            #expect(applier.apply(victim.patch, to: id).word == "patched")
            #expect(try !victim.isVulnerable)
            #expect(applier.revert(victim.patch, in: id).word == "reverted")
            #expect(try victim.isVulnerable)
        }

        @Test("a program linked at a fixed address, with a patched library")
        func fixedAddress() throws {
            try patchAndRevert(Victim("flow.c", flags: ["-no-pie"], ["longjmp"]))
        }

        @Test("a setuid program that another user started, and one that gave up its rights")
        func setuid() throws {
            let fixture = try Fixture.get(), program = try fixture.other("flow.c", ["-DSETUID"])
            _ = try ChildProcess.runChecked(["chmod", "755", fixture.folder, fixture.folder + "/old"])
            _ = try ChildProcess.runChecked(["chmod", "4755", program])
            let raised = try Victim(command: ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", program])
            let status = try raised.handle.status()
            #expect(status.user == 65534)
            try patchAndRevert(raised)
            let plain = try fixture.other("flow.c")
            try patchAndRevert(
                Victim(command: ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--no-new-privs", plain]))
        }

        @Test("a process with a root, users, processes and a network of its own")
        func namespacesAndRoot() throws {
            let fixture = try Fixture.get(), program = try fixture.other("flow.c")
            let root = fixture.folder + "/root"
            let files = [program, fixture.folder + "/old/libtarget.so", "/lib64/ld-linux-x86-64.so.2", "/lib/x86_64-linux-gnu/libc.so.6"]
            for file in files {
                let place = root + file
                try FileManager.default.createDirectory(
                    atPath: (place as NSString).deletingLastPathComponent, withIntermediateDirectories: true)
                try? FileManager.default.removeItem(atPath: place)
                try FileManager.default.copyItem(atPath: URL(fileURLWithPath: file).resolvingSymlinksInPath().path, toPath: place)
            }
            let shell = try Victim(
                command: ["unshare", "--user", "--map-root-user", "--mount", "--pid", "--net", "--ipc", "--fork", "chroot", root, program])
            let inner = try #require(
                try listProcesses().first { (try? ProcessHandle($0).status()).map { $0.parent == shell.id } ?? false })
            #expect(try ProcessHandle(inner).status().namespaceIDs.last == 1)
            try patchAndRevert(shell, inner)
            shell.child.closeInput()
        }

        @Test("its program and its library are deleted")
        func deleted() throws {
            let fixture = try Fixture.get(), folder = fixture.folder + "/deleted"
            try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
            for file in [try fixture.other("flow.c"), fixture.folder + "/old/libtarget.so"] {
                try FileManager.default.copyItem(atPath: file, toPath: folder + "/" + (file as NSString).lastPathComponent)
            }
            let victim = try Victim(command: [folder + "/flow"])
            try FileManager.default.removeItem(atPath: folder)
            try patchAndRevert(victim)
        }

        @Test("one that has ended and waits for its parent")
        func zombie() throws {
            let victim = try Victim("flow.c", [])
            victim.child.closeInput()
            try victim.wait { try victim.handle.status().state == .zombie }
            #expect(applier.apply(victim.patch, to: victim.id).word == "gone")
            #expect(applier.revert(victim.patch, in: victim.id).word == "gone")
        }

        @Test("while a task outside the process runs in its memory it is refused, and afterwards patched")
        func sharedMemory() throws {
            let victim = try Victim("flow.c", ["clone"])
            #expect(impatient.apply(victim.patch, to: victim.id).word == "memory-shared")
            #expect(try victim.isVulnerable)
            #expect(try victim.ask("leave") == "left")
            try patchAndRevert(victim)
        }

        @Test("who shares memory is found when processes cannot be sorted by their memory: then all are asked, every time")
        func sharedMemoryUnsorted() throws {
            let victim = try Victim("flow.c", ["clone"]), alone = try Victim("flow.c", [])
            let task = try #require(
                try listProcesses().first { (try? ProcessHandle($0).status())?.parent == victim.id })
            // Each look at two processes fails, as when processes end all the time; then only some do.
            for failing in [1, 3] {
                let looks = Atomic(0)
                let groups = MemoryGroups(order: { a, b in
                    let n = looks.add(1, ordering: .relaxed).newValue
                    return n % failing == 0 ? -ESRCH : MemoryGroups.kernelOrder(a, b)
                })
                for _ in 0..<3 {
                    #expect(try groups.sharing(with: victim.handle) == [task])
                    #expect(try groups.sharing(with: ProcessHandle(task)) == [victim.id])
                    #expect(try groups.sharing(with: alone.handle).isEmpty)
                }
                #expect(looks.load(ordering: .relaxed) > 0)
            }
            #expect(try victim.ask("leave") == "left")
            #expect(try MemoryGroups().sharing(with: victim.handle).isEmpty)
        }

        @Test("who begins to share memory after it was looked at is found all the same, by many who ask at once")
        func sharedMemoryLater() async throws {
            let groups = MemoryGroups()
            let first = try Victim("flow.c", [])
            #expect(try groups.sharing(with: first.handle).isEmpty)
            let victim = try Victim("flow.c", ["clone"])
            let task = try #require(
                try listProcesses().first { (try? ProcessHandle($0).status())?.parent == victim.id })
            // For longer than one look is used, so that it is renewed meanwhile.
            let end = ContinuousClock.now + MemoryGroups.ageMax + MemoryGroups.renewalAge
            let wrong = await withTaskGroup(of: Int.self) { group in
                for _ in 0..<4 {
                    group.addTask {
                        var wrong = 0
                        while ContinuousClock.now < end {
                            if (try? groups.sharing(with: victim.handle)) != [task] { wrong += 1 }
                            if (try? groups.sharing(with: first.handle)) != [] { wrong += 1 }
                            usleep(500)
                        }
                        return wrong
                    }
                }
                return await group.reduce(0, +)
            }
            #expect(wrong == 0)
            #expect(try victim.ask("leave") == "left")
        }

        @Test("a child forked in the middle of a transition is the old code or the new one, and is said to be what it is")
        func forkedInTheMiddle() throws {
            for step in [TransitionStep.mapped, .written, .released] {
                let victim = try Victim()
                let outcome = Applier(Tracer(), checkpoint: { if $0 == step { _ = try? victim.ask("fork") } })
                    .apply(victim.patch, to: victim.id)
                #expect(outcome.word == "patched")
                let child = try #require(try listProcesses().first { (try? ProcessHandle($0).status())?.parent == victim.id })
                // From the fork on it is the child that answers.
                let isVulnerable = try victim.isVulnerable
                #expect(isVulnerable == (step != .released))
                let word = applier.apply(victim.patch, to: child).word
                #expect(word == (isVulnerable ? "patched" : "already patched"), "\(step)")
                #expect(try !victim.isVulnerable)
                #expect(applier.revert(victim.patch, in: child).word == "reverted")
                #expect(try victim.isVulnerable)
            }
        }
    }
}
