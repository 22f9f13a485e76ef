// `fother inspect FILE`: what a patch is for, what it changes, and how sure its builder was.

import ArgumentParser
import ELF
import LivePatch
import ProcessControl

struct InspectCommand: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "inspect", abstract: "Show what a patch file holds.")

    @Argument(help: "A patch file, or the id of a patch this host holds.") var patch: String
    @Flag(help: "Print JSON, schema fother.inspect/1.") var json = false

    struct Report: Encodable {
        var schema = "fother.inspect/1"
        var id: String
        var manifest: Manifest
    }

    func run() throws {
        try Program.run {
            let patch = try PatchStore().find(patch)
            if json { try Output.json(Report(id: patch.id.description, manifest: patch.manifest)) } else { show(patch) }
            return Exit.done
        }
    }

    private func show(_ patch: LivePatch) {
        let m = patch.manifest
        func row(_ name: String, _ text: String) {
            Output.line("  " + Theme.quiet(name + String(repeating: " ", count: max(1, 12 - name.count))) + text)
        }
        Output.line(Theme.strong(m.object))
        row("patch", patch.id.description)
        if let package = m.package { row("package", "\(package)  \(m.oldVersion ?? "?") -> \(m.newVersion ?? "?")") }
        row("for build", m.buildID)
        row("code from", m.newBuildID)
        if !m.cves.isEmpty { row("names", m.cves.joined(separator: ", ")) }
        if m.cvesAreComplete == false { row("", Theme.review("the changelog does not hold both versions: more may have been fixed")) }
        row(
            "verdict",
            (m.verdict == .pass ? Theme.good("pass") : Theme.review(m.verdict.rawValue))
                + ", on evidence: \(m.evidence.joined(separator: ", "))")
        row("switches", (m.consistency.mode == .perCall ? "call by call: " : "together: ") + m.consistency.because)
        row("built by", m.tool)
        Output.line()
        var table = Table("  FUNCTION", "OLD", "NEW", "ENTERED BY", "WHY")
        for f in m.functions {
            table.add(
                .init("  " + f.name), .init(f.oldAddress == 0 ? "-" : "\(f.oldSize) bytes"), .init("\(f.newSize) bytes"),
                .init(f.isHooked ? "a jump at \(hex(f.oldAddress))" : "the patch"), .init(f.why))
        }
        table.print()
        Output.line()
        Output.line("  " + Theme.quiet("references of the new code, by what proves them"))
        for (evidence, count) in m.references.sorted(by: { ($1.value, $0.key) < ($0.value, $1.key) }) {
            Output.line("  \(pad(count))  \(evidence)")
        }
        if !m.findings.isEmpty {
            Output.line()
            Output.line("  findings; apply declines until each is accepted by name")
            FindingsText.show(m.findings)
        }
    }

    private func pad(_ n: Int) -> String { String(repeating: " ", count: max(0, 5 - String(n).count)) + String(n) }
}
