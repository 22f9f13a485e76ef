// `fother symbols PID`: names and unwind data of the patched code in a process, for gdb and perf.

import ArgumentParser
import ELF
import Foundation
import LivePatch
import LivePatchApplier
import ProcessControl

struct SymbolsCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "symbols", abstract: "Write names and unwind data of the patched code in a process, for gdb and perf.",
        discussion: "Exit: 0 written, 2 there is no patch in the process, 3 a patch in it is not described, 1 error, 77 no permission.")

    @Argument(help: "A process.") var pid: Int32
    @Option(name: [.short, .long], help: "The file to write (default: symbols-PID.elf).") var output: String?
    @Flag(help: "Also write the map that perf looks for, /tmp/perf-PID.map (in the process's own mount namespace).") var perf = false
    @Option(help: "A patch file to know the patch in the process by, if this host does not hold it (may be repeated).") var patch:
        [String] = []
    @Flag(help: "Print JSON, schema fother.symbols/1.") var json = false

    struct Report: Encodable {
        var schema = "fother.symbols/1"
        var pid: Int32
        var patches: [String]
        var names: Int
        var file: String?
        var perfMap: String?
        /// For gdb.
        var command: String?
        var untold: [FailureValue]
    }

    func run() throws {
        try Program.run {
            let store = PatchStore()
            let given = try patch.map { try store.find($0) }
            let held = HeldPatches(store)
            func hold(_ id: PatchID) -> LivePatch? { given.first { $0.id == id } ?? held[id] }
            let id = ProcessID(pid)
            let symbols = try ProcessSymbols(ProcessView(id, held: hold), held: hold)
            var report = Report(
                pid: pid, patches: symbols.patches.map(\.description), names: symbols.file.names.count,
                untold: symbols.untold.map(FailureValue.init))
            if !symbols.patches.isEmpty {
                let path = URL(fileURLWithPath: output ?? "symbols-\(pid).elf")
                try OutputFile.replace(path.lastPathComponent, in: path.deletingLastPathComponent().path, symbols.file.bytes, mode: 0o644)
                report.file = path.path
                report.command = "add-symbol-file \(path.path)"
                if perf { report.perfMap = try writePerfMap(symbols.file, id) }
            }
            if json { try Output.json(report) } else { show(report) }
            if !report.untold.isEmpty { return Exit.couldNotTell }
            return symbols.patches.isEmpty ? Exit.actionNeeded : Exit.done
        }
    }

    /// A runtime that compiles while it runs writes this file itself, and goes on writing: that one is left alone.
    private func writePerfMap(_ file: SymbolFile, _ id: ProcessID) throws -> String {
        let (root, name) = try ProcessHandle(id).perfMap()
        let path = "/tmp/" + name
        do {
            guard SymbolFile.isPerfMap(try RegularFile.read(path, in: root, limitBytes: 64 << 20)) else {
                throw Failure(
                    "perf-map-in-use", "the process has a perf map of its own.", at: path, remedy: "Remove it if nothing needs it any more."
                )
            }
        } catch let failure as Failure where failure.code == "file-unreadable" {}  // none, or a link or the like: it is replaced
        try OutputFile.replace(name, in: "/tmp", root: root, Array(file.perfMap.utf8), mode: 0o644)
        return root == "/" ? path : root + path
    }

    private func show(_ report: Report) {
        for f in report.untold { Output.line(Theme.review("not described: \(f.sentence) \(f.remedy) [\(f.code)]")) }
        guard let file = report.file, let command = report.command else {
            Output.line("There is no patch in process \(pid) that can be described.")
            return
        }
        Output.line(
            "\(Theme.strong(file))  \(report.names) names from \(report.patches.count == 1 ? "1 patch" : "\(report.patches.count) patches")"
        )
        if let map = report.perfMap { Output.line("\(Theme.strong(map))  for perf report, perf top") }
        Output.line("in gdb, attached to \(pid):")
        Output.line("  " + command)
    }
}
