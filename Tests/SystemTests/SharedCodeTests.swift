// Code that several processes map from one file: the same answers as from memory of their own, less of it, and where it cannot be
// shared each has its own.

import ELF
import Foundation
import Glibc
import LivePatch
import LivePatchApplier
import Testing

@testable import ProcessControl

extension SystemTests {
    @Suite struct SharedCodeTests {
        let folder = CodeFolder()

        private func applier(_ path: String? = nil) -> Applier {
            var applier = Applier(Tracer())
            applier.codeFiles = CodeFiles(folder: path ?? folder.path)
            return applier
        }
        private func report(_ outcome: ProcessOutcome) throws -> TransitionReport {
            guard case .patched(let report) = outcome else { throw Failure("test", "not patched: \(outcome)") }
            return report
        }
        private func found(_ victim: Victim) throws -> FoundPatch {
            try #require(try ProcessView(victim.id) { $0 == victim.patch.id ? victim.patch : nil }.patches.first)
        }
        /// The file that the patch's code is mapped from; 0 when it is in none.
        private func inode(_ victim: Victim) throws -> UInt64 {
            let code = try #require(try found(victim).plan).newCode.lowerBound
            return try #require(try victim.handle.mappings().mapping(at: code)).inode
        }

        @Test("processes of one program, at different addresses, have one copy of the code; nothing grows, no descriptor is left")
        func shared() throws {
            let victims = try (0..<3).map { _ in try Victim() }, applier = applier()
            var before: [Int] = []
            for victim in victims {
                let descriptors = try descriptors(of: victim.id)
                let report = try report(applier.apply(victim.patch, to: victim.id))
                #expect(report.sharedBytes >= 4096 && report.notShared == nil)
                #expect(try !victim.isVulnerable)
                #expect(try victim.state == "patched")
                #expect(try found(victim).sharedBytes == report.sharedBytes)
                #expect(try found(victim).residentBytes == report.residentBytes)
                #expect(try self.descriptors(of: victim.id) == descriptors)
                before.append(try victim.handle.mappings().count)
            }
            #expect(Set(try victims.map { try #require(try found($0).plan).base }).count == 3, "addresses are random")
            #expect(Set(try victims.map(inode)).count == 1)
            for (victim, count) in zip(victims, before) {
                for _ in 0..<5 {
                    #expect(applier.revert(victim.patch, in: victim.id).word == "reverted")
                    #expect(try victim.isVulnerable)
                    #expect(
                        try report(applier.apply(victim.patch, to: victim.id)).sharedBytes >= 4096, "what is used again is still shared")
                }
                #expect(try victim.handle.mappings().count == count)
                // A Fother that shares nothing understands what it finds.
                let other = Applier(Tracer())
                #expect(other.apply(victim.patch, to: victim.id).word == "already patched")
                #expect(other.revert(victim.patch, in: victim.id, unmap: true).word == "reverted")
                #expect(try victim.isVulnerable)
            }
        }

        @Test("a child forked before the patch maps the same file; its page tables show that the pages are not its own")
        func forked() throws {
            let victim = try Victim(), applier = applier()
            #expect(try victim.ask("fork") == "forked")  // from here on the child answers
            let child = try #require(try listProcesses().first { (try? ProcessHandle($0).status())?.parent == victim.id })
            for id in [victim.id, child] { #expect(try report(applier.apply(victim.patch, to: id)).sharedBytes >= 4096) }
            #expect(try !victim.isVulnerable)
            for id in [victim.id, child] {
                let patch = try #require(try ProcessView(id) { $0 == victim.patch.id ? victim.patch : nil }.patches.first)
                let name = String(try #require(patch.plan).newCode.lowerBound.value, radix: 16)
                let lines = try ChildProcess.runChecked(["cat", "/proc/\(id)/smaps"]).outputText.split(separator: "\n")
                let at = try #require(lines.firstIndex { $0.hasPrefix(name + "-") })
                func kilobytes(_ field: String) -> Int? {
                    lines[at...].first { $0.hasPrefix(field + ":") }.flatMap {
                        $0.split(separator: " ").dropFirst().first.flatMap { Int($0) }
                    }
                }
                #expect(kilobytes("Private_Dirty") == 0 && kilobytes("Anonymous") == 0)
                #expect(kilobytes("Rss") ?? 0 > 0)
            }
        }

        @Test("nobody can write to the file, make it shorter, rename or remove it, and it is labelled as the library is")
        func unchangeable() throws {
            let victim = try Victim(), library = victim.fixture.folder + "/old/libtarget.so"
            // Any file system keeps a label, whether a security module reads it or not.
            let label = "system_u:object_r:lib_t:s0"
            try setLabel(label, of: library)
            defer { try? setLabel(nil, of: library) }
            #expect(try report(applier().apply(victim.patch, to: victim.id)).sharedBytes > 0)
            let file = try #require(try FileManager.default.contentsOfDirectory(atPath: folder.path).first), path = folder.path + "/" + file
            let bytes = try RegularFile.read(path)
            for attack in ["printf x >\(path)", "printf x >>\(path)", "truncate -s 0 \(path)", "mv \(path) \(path).other", "rm -f \(path)"]
            {
                #expect(try ChildProcess.run(["sh", "-c", attack]).status != .exited(0), "\(attack)")
            }
            #expect(try RegularFile.read(path) == bytes)
            #expect(ProcessControl.label(of: path) == label)
            // For a library with another label it is not the right one.
            try setLabel("system_u:object_r:user_home_t:s0", of: library)
            let second = try Victim()
            let own = try report(applier().apply(second.patch, to: second.id))
            #expect(own.sharedBytes == 0 && own.notShared?.code == "code-file")
        }

        @Test("a file that another has put there, or that says something else, is not used")
        func forged() throws {
            let victim = try Victim()
            #expect(try report(applier().apply(victim.patch, to: victim.id)).sharedBytes > 0)
            let name = try #require(try FileManager.default.contentsOfDirectory(atPath: folder.path).first)
            let size = try Data(contentsOf: URL(fileURLWithPath: folder.path + "/" + name)).count
            let other = CodeFolder()
            try FileManager.default.createDirectory(atPath: other.path, withIntermediateDirectories: true)
            let path = other.path + "/" + name
            try Data(repeating: 0xcc, count: size).write(to: URL(fileURLWithPath: path))
            try chmod("444", path)
            let second = try Victim()
            let own = try report(applier(other.path).apply(second.patch, to: second.id))
            #expect(own.sharedBytes == 0 && own.notShared?.code == "code-file")
            #expect(try !second.isVulnerable)
            // Nor is a folder that others can write to.
            let open = CodeFolder()
            try FileManager.default.createDirectory(atPath: open.path, withIntermediateDirectories: true)
            try chmod("777", open.path)
            let third = try Victim()
            #expect(try report(applier(open.path).apply(third.patch, to: third.id)).notShared?.code == "code-file")
            #expect(try !third.isVulnerable)
        }

        /// Why nothing can be shared, and what is said.
        @Test(
            "where it cannot be shared the process has its own copy, and lacks nothing",
            arguments: ["threads", "filter", "full", "noexec", "ramfs", "user", "root", "hidden", "missing"])
        func own(_ reason: String) throws {
            let fixture = try Fixture.get()
            var command = [fixture.program], expected = ""
            try FileManager.default.createDirectory(atPath: folder.path, withIntermediateDirectories: true)
            switch reason {
            case "threads": (command, expected) = (command + ["--threads", "2"], "several threads")
            case "filter": (command, expected) = (command + ["--seccomp", "errno"], "seccomp filter")
            case "full":
                try folder.mount("tmpfs", "size=4k,mode=755")
                expected = "No space left"
            case "noexec":
                try folder.mount("tmpfs", "noexec,mode=755")
                expected = "Operation not permitted"
            case "ramfs":
                try folder.mount("ramfs", "rw")
                expected = "Inappropriate ioctl"
            case "user":
                try chmod("700", folder.path)
                try chmod("755", fixture.folder)
                try chmod("755", fixture.folder + "/old")
                command = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"] + command
                expected = "Permission denied"
            case "root":
                // A process that sees another file by that name.
                command = ["unshare", "--mount", "sh", "-c", "mount -t tmpfs none \(folder.path) && exec \(command[0])"]
                expected = "does not show"
            case "hidden":
                // One that does not see it at all.
                command = ["unshare", "--mount", "sh", "-c", "mount --move \(folder.path) /mnt && exec \(command[0])"]
                try folder.mount("tmpfs", "mode=755")
                expected = "does not show"
            default: expected = "No such file"
            }
            let victim = try Victim(command: command)
            let place = reason == "missing" ? folder.path + "/there/is/none" : reason == "user" ? folder.path + "/code" : folder.path
            let descriptors = try descriptors(of: victim.id), maps = try victim.handle.mappings().count
            let report = try report(applier(place).apply(victim.patch, to: victim.id))
            #expect(report.sharedBytes == 0)
            #expect(report.notShared?.sentence.contains(expected) == true, "\(String(describing: report.notShared))")
            #expect(try !victim.isVulnerable)
            #expect(try victim.state == "patched")
            #expect(try self.descriptors(of: victim.id) == descriptors)
            #expect(Applier(Tracer()).revert(victim.patch, in: victim.id, unmap: true).word == "reverted")
            #expect(try victim.isVulnerable)
            #expect(try victim.handle.mappings().count <= maps + 4)
        }

        private func chmod(_ mode: String, _ path: String) throws { _ = try ChildProcess.runChecked(["chmod", mode, path]) }

        /// setxattr and removexattr, which Swift does not see.
        private func setLabel(_ label: String?, of path: String) throws {
            let call = label == nil ? "syscall(197, $ARGV[0], $n)" : "syscall(188, $ARGV[0], $n, $ARGV[1], length $ARGV[1], 0)"
            _ = try ChildProcess.runChecked(["perl", "-e", "$n = 'security.selinux'; \(call) == 0 or die $!", path, label ?? ""])
        }

        private func descriptors(of id: ProcessID) throws -> [String] {
            try FileManager.default.contentsOfDirectory(atPath: "/proc/\(id)/fd").sorted()
        }
    }
}

/// A folder for code files, which goes, and the files with it, when this value does.
final class CodeFolder: Sendable {
    let path = FileManager.default.temporaryDirectory.appendingPathComponent("fother-code-\(UUID().uuidString)").path

    func mount(_ kind: String, _ options: String) throws {
        _ = try ChildProcess.runChecked(["mount", "-t", kind, "-o", options, "none", path])
    }

    deinit {
        _ = try? ChildProcess.run(["umount", path])
        _ = try? ChildProcess.run(["chattr", "-R", "-i", path])
        try? FileManager.default.removeItem(atPath: path)
    }
}
