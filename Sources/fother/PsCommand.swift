// `fother ps`: running instances, which build each really is, and which patches are in it.

import ArgumentParser
import ELF
import Foundation
import LivePatch
import LivePatchApplier
import ProcessControl

struct PsCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "ps", abstract: "List running programs and libraries with the build ID read from memory, and their patches.",
        discussion: "A transition that was killed on the way is undone where it is found. Exit: 0; 3 when some process could not be told.")

    @Option(help: "Only this process (may be repeated).") var pid: [Int32] = []
    @Option(help: "Only objects whose path or name contains this.") var object: String?
    @Option(name: .customLong("build-id"), help: "Only objects whose build ID begins like this.") var buildID: String?
    @Flag(help: "Only processes with patches.") var patched = false
    @Option(help: "Also recognise this patch file (may be repeated).") var patch: [String] = []
    @Flag(help: "Print JSON, schema fother.ps/1.") var json = false

    struct ObjectLine: Encodable {
        var path: String
        var buildID: String?
        var package: String?
        var version: String?
        /// installed, replaced, deleted, no-package, could-not-tell.
        var file: String
    }
    struct PatchLine: Encodable {
        var id: String?
        var object: String?
        /// patched, patched-in-part, retired, unfinished, orphaned, interrupted, undone, could-not-tell.
        var state: String
        var accepted: [Acceptance]
        /// Threads that are still in a call of old code that began before the patch took effect.
        var finishing: [String]?
        /// Whether the process can unwind through it: registered, no-unwinder, not-registered.
        var frames: String?
        /// Memory that the process does not share with others because of the patch, at most; and what of the patch it shares.
        var residentBytes: Int?
        var sharedBytes: Int?
        /// file, if any bytes are shared; else anonymous.
        var codeMemory: String?
        var failure: FailureValue?
    }
    struct ProcessLine: Encodable {
        var pid: Int32
        var program: String
        var objects: [ObjectLine]
        var patches: [PatchLine]
    }
    struct Unreadable: Encodable {
        var pid: Int32
        var failure: FailureValue
    }
    struct Report: Encodable {
        var schema = "fother.ps/1"
        var processes: [ProcessLine]
        var unreadable: [Unreadable]
    }

    func run() throws {
        try Program.run {
            let store = PatchStore()
            let given = try patch.map { try store.find($0) }
            let held = HeldPatches(store, also: given)
            let hold: @Sendable (PatchID) -> LivePatch? = { held[$0] }
            let scan = try ProcessScan(
                only: pid.isEmpty ? nil : pid.map { ProcessID($0) }, held: hold, each: { ManyProcesses.map($0, "looking", $1) })
            let names = PackageNames(scan.views)
            var report = Report(
                processes: [], unreadable: scan.unreadable.map { Unreadable(pid: $0.id.value, failure: FailureValue($0.failure)) })
            for view in scan.views {
                let objects = view.objects.filter(isWanted)
                if objects.isEmpty || patched && view.patches.isEmpty { continue }
                report.processes.append(
                    ProcessLine(
                        pid: view.id.value, program: view.program ?? view.status.name,
                        objects: objects.map { line($0, names.answer($0, in: view.id)) }, patches: view.patches.map { line($0, view, hold) }
                    ))
            }
            if json { try Output.json(report) } else { show(report) }
            let untold = !report.unreadable.isEmpty || report.processes.contains { $0.patches.contains { $0.state == "could-not-tell" } }
            return untold ? Exit.couldNotTell : Exit.done
        }
    }

    private func isWanted(_ o: LoadedObject) -> Bool {
        if let object, !o.path.contains(object) { return false }
        if let buildID, !(o.buildID?.description.hasPrefix(buildID.lowercased()) ?? false) { return false }
        return true
    }

    private func line(_ o: LoadedObject, _ answer: PackageAnswer) -> ObjectLine {
        var line = ObjectLine(path: o.path, buildID: o.buildID?.description, file: "could-not-tell")
        switch answer {
        case .version(let package, let version):
            line.package = package
            line.version = version
            line.file = "installed"
        case .replaced(let package, let version):
            line.package = package
            line.version = version
            line.file = "replaced"
        case .deleted: line.file = "deleted"
        case .noPackage: line.file = "no-package"
        case .couldNotTell: break
        }
        return line
    }

    private func line(_ found: FoundPatch, _ view: ProcessView, _ hold: (PatchID) -> LivePatch?) -> PatchLine {
        let patch = found.header.flatMap { hold($0.patch) }
        var line = PatchLine(
            id: found.header?.patch.description, object: patch?.manifest.object, state: "could-not-tell",
            accepted: found.header?.acceptances ?? [])
        line.frames = (try? view.frames(of: found))?.word
        if let bytes = found.residentBytes {
            line.residentBytes = bytes
            line.sharedBytes = found.sharedBytes
            line.codeMemory = found.sharedBytes > 0 ? "file" : "anonymous"
        }
        switch found.state {
        case .patched:
            line.state = patch.map { view.copies(without: $0) > 0 } ?? false ? "patched-in-part" : "patched"
            // Committed is not yet in full effect: a call that began before may still be running.
            if found.header?.isEffective == false, let patch {
                let threads = Applier(Tracer(), budget: .oneLook, held: { $0 == patch.id ? patch : nil }).finishing(patch, in: view.id)
                line.finishing = threads?.map(\.text) ?? ["not looked at: another fother is at work on it"]
                if line.finishing?.isEmpty == true { line.finishing = nil }
            }
        case .retired: line.state = "retired"
        case .unfinished: line.state = "unfinished"
        case .orphaned: line.state = "orphaned"
        case .couldNotTell(let failure): line.failure = FailureValue(failure)
        case .interrupted:
            line.state = "interrupted"
            // Whoever was killed there left a mixture: the old code is the state that needs no decision.
            if let patch, case .reverted = Applier(Tracer()).revert(patch, in: view.id) { line.state = "undone" }
        }
        return line
    }

    private func show(_ report: Report) {
        var table = Table("PID", "PROGRAM", "OBJECT", "BUILD ID", "PACKAGE", "VERSION")
        for p in report.processes {
            for (i, o) in p.objects.enumerated() {
                table.add(
                    .init(i == 0 ? "\(p.pid)" : "", Theme.strong), .init(i == 0 ? (p.program as NSString).lastPathComponent : ""),
                    .init(o.path),
                    .init(o.buildID.map { String($0.prefix(12)) } ?? "none"), .init(o.package ?? "-"), version(o))
            }
            for patch in p.patches {
                table.add(
                    .init(""), .init(""), .init("  patch \(patch.id?.prefix(12) ?? "?") \(patch.object ?? "")"), .init(""), .init(""),
                    state(patch))
            }
        }
        if table.rows.isEmpty { Output.line("No running instance fits.") } else { table.print() }
        for u in report.unreadable { Output.line(Theme.review("\(u.pid)  could not be read: \(u.failure.sentence)")) }
    }

    private func version(_ o: ObjectLine) -> Table.Cell {
        switch o.file {
        case "installed": .init(o.version ?? "")
        case "replaced": .init("replaced on disk by \(o.version ?? "another file"); running build: unknown", Theme.review)
        case "deleted": .init("deleted from disk; running build: unknown", Theme.review)
        case "no-package": .init("belongs to no package", Theme.quiet)
        default: .init("could not tell", Theme.review)
        }
    }

    private func memory(_ p: PatchLine) -> String {
        guard let own = p.residentBytes, let shared = p.sharedBytes else { return "" }
        return "; \(own >> 10) KiB of its own" + (shared > 0 ? ", \(shared >> 10) shared" : "")
    }

    private func state(_ p: PatchLine) -> Table.Cell {
        switch p.state {
        case "patched-in-part":
            .init("patched, and another copy of the object in this process is not", Theme.exposed)
        case "patched" where p.finishing != nil:
            .init("patched for new calls; \((p.finishing ?? []).prefix(3).joined(separator: ", "))", Theme.review)
        case "patched":
            .init(
                "patched, read back" + memory(p)
                    + (p.accepted.isEmpty ? "" : "; accepted: " + p.accepted.map(\.finding).joined(separator: ", ")),
                Theme.good)
        case "retired": .init("reverted; memory kept", Theme.quiet)
        case "orphaned": .init("left behind: its object was unloaded", Theme.quiet)
        case "unfinished": .init("never applied; memory kept", Theme.quiet)
        case "undone": .init("was interrupted; undone now", Theme.review)
        case "interrupted": .init("interrupted: fother revert \(p.id?.prefix(12) ?? "")", Theme.exposed)
        default: .init("could not tell: \(p.failure?.sentence ?? "")", Theme.review)
        }
    }
}
