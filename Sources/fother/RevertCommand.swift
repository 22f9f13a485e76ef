// `fother revert ID`: puts the old code back.

import ArgumentParser
import ELF
import Foundation
import LivePatch
import LivePatchApplier
import ProcessControl

struct RevertCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "revert", abstract: "Put the old code back in every process that runs a patch, or in chosen ones.",
        discussion:
            "The patch's memory stays mapped, as old pointers may reach it, and is used again. Exit: 0 every new call runs the old code (calls under way that began in new code are named), 2 refused or declined, 3 some process could not be told, 1 error, 77 no permission."
    )

    @Argument(help: "The id of a patch (its beginning will do), or the patch file.") var patch: String
    @Option(help: "Only this process (may be repeated).") var pid: [Int32] = []
    @Flag(help: "Also unmap the patch's memory, where a search of all registers and memory finds nothing that points there.")
    var unmap = false
    @OptionGroup var patience: Patience
    @Flag(help: "Print JSON, schema fother.revert/1.") var json = false

    func run() throws {
        try Program.run {
            Tracer.stepBack()
            let live = try PatchStore().find(patch)
            let scan = try ProcessScan(
                only: pid.isEmpty ? nil : pid.map { ProcessID($0) }, held: { $0 == live.id ? live : nil },
                each: { ManyProcesses.map($0, "looking", $1) })
            let applier = Applier(Tracer(), budget: try patience.budget())
            var lines = scan.unreadable.map { TransitionLine($0.id, unreadable: $0.failure) }
            let affected = scan.views.filter { v in !pid.isEmpty || v.patches.contains { $0.header?.patch == live.id } }
            lines += ManyProcesses.map(affected.map { ($0.id, $0.name) }, "reverting") {
                TransitionLine($0, $1, applier.revert(live, in: $0, unmap: unmap))
            }
            let result = TransitionResult(
                schema: "fother.revert/1", id: live.id.description, buildID: live.buildID.description, accepted: [],
                processes: lines.sorted { $0.pid < $1.pid })
            if json {
                try Output.json(result)
            } else {
                Output.line("\(Theme.strong(live.manifest.object))  patch \(live.id.short)")
                result.show("No process has this patch.")
            }
            return result.exit
        }
    }
}
