// `fother apply FILE`: patches every running instance of the build the patch is for.

import ArgumentParser
import ELF
import Foundation
import LivePatch
import LivePatchApplier
import ProcessControl

struct ApplyCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "apply", abstract: "Apply a live patch to every running instance, or to chosen processes.",
        discussion:
            "Exit: 0 no unpatched instance remains, 2 refused, declined or findings not accepted, 3 some process could not be told, 1 error, 77 no permission."
    )

    @Argument(help: "A patch file, or the id of a patch this host holds.") var patch: String
    @Option(help: "Only this process (may be repeated).") var pid: [Int32] = []
    @Flag(name: .customLong("dry-run"), help: "Print what would be written, and change nothing.") var dryRun = false
    @Option(help: "Accept a finding of a patch under review, by CODE:FUNCTION (may be repeated).") var accept: [String] = []
    @Option(help: "Why the accepted findings do not matter here: one reason for all, or one for each.") var because: [String] = []
    @Flag(help: "Apply a patch file that this host did not derive and that no trusted key signed.") var trustUnsigned = false
    @OptionGroup var patience: Patience
    @Option(help: "together: all functions switch at one moment, even where the patch lets them switch call by call.")
    var consistency: AskedConsistency?
    @Flag(help: "Print JSON, schema fother.apply/1.") var json = false

    func run() throws {
        try Program.run {
            Tracer.stepBack()
            let store = PatchStore()
            let live = try store.find(patch)
            // What this host holds was trusted when it came.
            let isFile = FileManager.default.fileExists(atPath: patch)
            let trust = isFile && !trustUnsigned ? try Trust().reason(live, file: patch) : nil
            let acceptances = try accepted(live)
            if dryRun { return try plan(live, acceptances) }
            // Held before anything is touched: without it nobody could tell later what is in the process.
            if isFile { try store.keep(RegularFile.read(patch), live.id) }
            let held = HeldPatches(store, also: [live])
            var applier = Applier(Tracer(), budget: try patience.budget(), held: { held[$0] })
            applier.budget.mustSwitchTogether = consistency == .together
            var done: [ProcessID: TransitionLine] = [:]
            // Processes that start meanwhile are found by looking again.
            for round in 0..<(pid.isEmpty ? 3 : 1) {
                let scan = try ProcessScan(
                    only: pid.isEmpty ? nil : pid.map { ProcessID($0) }, except: Set(done.keys), held: { held[$0] },
                    each: { ManyProcesses.map($0, "looking", $1) })
                let affected = scan.views.filter { v in
                    !pid.isEmpty || v.objects.contains { $0.buildID == live.buildID }
                }
                if round == 0 { for (id, failure) in scan.unreadable { done[id] = TransitionLine(id, unreadable: failure) } }
                if affected.isEmpty { break }
                // One alone has nobody to share with.
                if affected.count > 1, applier.codeFiles == nil { applier.codeFiles = CodeFiles(folder: PatchStore.codeFolder) }
                let lines = ManyProcesses.map(affected.map { ($0.id, $0.name) }, "applying") { [applier] id, name in
                    TransitionLine(id, name, applier.apply(live, to: id, acceptances: acceptances))
                }
                for (view, line) in zip(affected, lines) { done[view.id] = line }
            }
            let result = TransitionResult(
                schema: "fother.apply/1", id: live.id.description, buildID: live.buildID.description, accepted: acceptances,
                processes: done.values.sorted { $0.pid < $1.pid })
            if json {
                try Output.json(result)
            } else {
                Output.line(
                    "\(Theme.strong(live.manifest.object))  patch \(live.id.short) for build \(live.buildID)\(trust.map { ", " + $0 } ?? "")"
                )
                for a in acceptances { Output.line("  accepted \(a.finding): \(a.because)") }
                result.show("No running process has this build loaded: there is nothing to patch.")
            }
            return result.exit
        }
    }

    /// Every finding of the patch must be accepted by name, with a reason. Failures: `finding-unknown`, `because-missing`,
    /// `findings-not-accepted`.
    private func accepted(_ live: LivePatch) throws -> [Acceptance] {
        let open = live.manifest.findings.map(\.key)
        for key in accept where !open.contains(key) {
            throw Failure(
                "finding-unknown", "the patch has no such finding.", at: key,
                remedy: open.isEmpty ? "It has none." : "It has \(open.joined(separator: ", ")).")
        }
        guard accept.isEmpty || because.count == 1 || because.count == accept.count else {
            throw Failure(
                "because-missing", "\(accept.count) findings are accepted with \(because.count) reasons.", at: "--because",
                remedy: "Give one reason for all, or one for each.")
        }
        let acceptances = accept.enumerated().map { i, key in
            Acceptance(finding: key, because: because.count == 1 ? because[0] : because[i])
        }
        let missing = Set(open).subtracting(accept).sorted()
        guard missing.isEmpty else {
            Output.line("This patch is under review: a person must decide about each finding.")
            FindingsText.show(live.manifest.findings.filter { missing.contains($0.key) })
            Output.line("Nothing was changed. To go on: " + missing.map { "--accept '\($0)'" }.joined(separator: " ") + " --because '…'")
            throw ExitCode(Exit.actionNeeded)
        }
        return acceptances
    }

    // MARK: --dry-run

    /// More may be asked for than the patch demands, never less.
    enum AskedConsistency: String, ExpressibleByArgument { case together }

    struct Plan: Encodable {
        var pid: Int32
        var base: String?
        var mappedBytes: Int?
        var sites: [String: String]?
        var quiet: [String]?
        var consistency: Consistency?
        /// Bytes, and lines of the memory map, that it takes.
        var need: Need?
        /// What each limit leaves; a limit that there is not is left out.
        var left: [String: Int]?
        var failure: FailureValue?
    }
    struct Need: Encodable {
        var addressBytes: Int
        var dataBytes: Int
        var mappings: Int
        var residentBytes: Int

        init(_ need: MemoryNeed) {
            addressBytes = need.addressBytes
            dataBytes = need.dataBytes
            mappings = need.mappings
            residentBytes = need.residentBytes
        }
    }
    struct Plans: Encodable {
        var schema = "fother.plan/1"
        var id: String
        var plans: [Plan]
    }

    /// What limits leave of the process, by name.
    private func left(_ id: ProcessID) -> [String: Int]? {
        guard let handle = try? ProcessHandle(id), let maps = try? handle.mappings(),
            let room = try? MemoryHeadroom(handle, mappingCount: maps.count)
        else { return nil }
        let all = [
            ("addressSpace", room.addressSpace), ("data", room.data), ("locked", room.locked), ("mappings", room.mappings),
            ("cgroup", room.cgroup), ("commit", room.commit),
        ]
        return Dictionary(
            uniqueKeysWithValues: all.compactMap { name, room in if case .limited(let left, _) = room { (name, left) } else { nil } })
    }

    private func text(_ need: Need, _ left: [String: Int]) -> String {
        func of(_ name: String) -> String { left[name].map { " of \($0 >> 10) KiB left" } ?? "" }
        return "\(need.addressBytes >> 10) KiB of address space\(of("addressSpace")), \(need.dataBytes >> 10) KiB of data\(of("data")), "
            + "\(need.residentBytes >> 10) KiB filled\(of("cgroup")), \(need.mappings) mappings\(left["mappings"].map { " of \($0) left" } ?? "")"
    }

    private func plan(_ live: LivePatch, _ acceptances: [Acceptance]) throws -> Int32 {
        let scan = try ProcessScan(only: pid.isEmpty ? nil : pid.map { ProcessID($0) }, held: { $0 == live.id ? live : nil })
        var plans: [Plan] = []
        for view in scan.views where view.objects.contains(where: { $0.buildID == live.buildID }) {
            switch Applier(Tracer(), held: { PatchStore().patch($0) }).plans(live, for: view.id, acceptances: acceptances) {
            case .failure(let failure): plans.append(Plan(pid: view.id.value, failure: FailureValue(failure)))
            case .success(let all):
                plans += all.map { p in
                    Plan(
                        pid: view.id.value, base: p.base.description, mappedBytes: p.layout.size,
                        sites: Dictionary(
                            p.sites.map { ($0.address.description, "\(hexDigits($0.old)) -> \(hexDigits($0.new))  \($0.function)") },
                            uniquingKeysWith: { a, _ in a }),
                        quiet: p.guarded.map(\.name), consistency: p.consistency, need: Need(p.memoryNeed()), left: left(view.id))
                }
            }
        }
        if json {
            try Output.json(Plans(id: live.id.description, plans: plans))
        } else {
            Output.line("\(Theme.strong("plan"))  patch \(live.id.short) for build \(live.buildID); nothing is changed")
            if plans.isEmpty { Output.line("No running process has this build loaded.") }
            for p in plans {
                Output.line()
                Output.line("process \(p.pid)")
                if let f = p.failure { Output.line("  \(Theme.exposed("refused"))  \(f.sentence) \(f.remedy) [\(f.code)]") }
                if let base = p.base, let bytes = p.mappedBytes { Output.line("  map   \(bytes / 1024) KiB at \(base)") }
                for (address, text) in (p.sites ?? [:]).sorted(by: { $0.key < $1.key }) { Output.line("  jump  \(address)  \(text)") }
                if let c = p.consistency { Output.line("  \(c.mode == .perCall ? "call by call:" : "together:") \(c.because)") }
                if let need = p.need { Output.line("  memory  \(text(need, p.left ?? [:]))") }
                if let quiet = p.quiet { Output.line("  while no thread is in, or returns into: \(quiet.joined(separator: ", "))") }
            }
        }
        return plans.contains { $0.failure != nil } ? Exit.actionNeeded : Exit.done
    }
}
