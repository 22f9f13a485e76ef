// Processes at a limit of memory: refused with figures before anything is touched, patched where there is room.

import ELF
import Foundation
import LivePatch
import LivePatchApplier
import ProcessControl
import Testing

extension SystemTests {
    @Suite struct MemoryLimitTests {
        let applier = Applier(Tracer())

        /// Refused as a plan and when it is carried out, and nothing was changed; the sentence that says why.
        private func expectRefused(_ victim: Victim, _ code: String) throws -> String {
            let maps = try victim.handle.mappings()
            guard case .failure(let failure) = applier.plan(victim.patch, for: victim.id) else {
                Issue.record("there is a plan")
                return ""
            }
            #expect(failure.code == code)
            #expect(applier.apply(victim.patch, to: victim.id).word == code)
            #expect(try victim.handle.mappings() == maps)
            #expect(try victim.isVulnerable)
            return failure.sentence
        }

        private func expectPatched(_ victim: Victim) throws {
            #expect(applier.apply(victim.patch, to: victim.id).word == "patched")
            #expect(try !victim.isVulnerable)
            #expect(applier.revert(victim.patch, in: victim.id).word == "reverted")
            #expect(try victim.isVulnerable)
        }

        @Test(
            "a limit of the process: enough is enough, less is refused", arguments: ["as", "data", "locked"])
        func limits(_ kind: String) throws {
            let open = try StopTests.supported({ try Victim("limits.c", [kind, "400000"]) })
            guard case .success(let plan) = applier.plan(open.patch, for: open.id) else {
                Issue.record("no plan with room")
                return
            }
            let need = plan.memoryNeed(), bytes = kind == "data" ? need.dataBytes : need.addressBytes
            try expectPatched(open)
            guard bytes > 0 else { return }
            let tight = try Victim("limits.c", [kind, "\(bytes - 4096)"])
            let sentence = try expectRefused(tight, "no-memory-headroom")
            #expect(sentence.contains("\(bytes >> 10) KiB more") && sentence.contains("leaves \((bytes - 4096) >> 10) KiB"), "\(sentence)")
        }

        @Test("as many mappings as there may be")
        func mappings() throws {
            #expect(try expectRefused(Victim("limits.c", ["maps", "6"]), "map-count").contains("vm.max_map_count"))
            try expectPatched(Victim("limits.c", ["maps", "40"]))
        }

        @Test("a memory cgroup at its limit is refused; with room it is patched, and nobody in it is killed")
        func cgroup() throws {
            let point = "/sys/fs/cgroup/memory", folder = point + "/fother-test-\(getpid())", limit = 24 << 20
            do { try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: false) } catch {
                return  // no memory cgroup of version 1 can be made here
            }
            defer { _ = try? ChildProcess.runChecked(["rmdir", folder]) }
            try "\(limit)".write(toFile: folder + "/memory.limit_in_bytes", atomically: false, encoding: .utf8)
            func victim(_ left: Int) throws -> Victim? {
                try StopTests.supported { try Victim("limits.c", ["cgroup", folder, "\(left)", "\(limit)"]) }
            }
            do {
                guard let full = try victim(256 << 10) else { return }
                #expect(try expectRefused(full, "no-memory-headroom").contains("cgroup"))
                full.child.closeInput()
                _ = try full.child.wait(timeout: .seconds(10))
            }
            do {
                guard let roomy = try victim(3 << 20) else { return }
                try expectPatched(roomy)
                roomy.child.closeInput()
                _ = try roomy.child.wait(timeout: .seconds(10))
            }
        }

        @Test("what a patch is said to cost is what it costs")
        func cost() throws {
            let victim = try Victim()
            func privateBytes() throws -> Int {
                let text = try String(contentsOfFile: "/proc/\(victim.id)/smaps_rollup", encoding: .utf8)
                return text.split(separator: "\n").filter { $0.hasPrefix("Private_") }
                    .compactMap { line in line.split(separator: " ").dropFirst().first.flatMap { Int($0) } }.reduce(0, +) << 10
            }
            _ = try victim.isVulnerable
            let before = try privateBytes()
            guard case .success(let plan) = applier.plan(victim.patch, for: victim.id) else {
                Issue.record("no plan")
                return
            }
            guard case .patched(let report) = applier.apply(victim.patch, to: victim.id) else {
                Issue.record("not patched")
                return
            }
            #expect(report.residentBytes == plan.layout.size + plan.memoryNeed().unsharedBytes)
            let cost = try privateBytes() - before
            // The process itself touched a page or two more by being asked.
            #expect(cost <= report.residentBytes + 16384 && cost >= report.residentBytes - 16384, "\(cost) and \(report.residentBytes)")
        }
    }
}
