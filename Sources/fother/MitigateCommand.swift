// `fother mitigate`: the emergency switch for a hole that has no fix yet.

import ArgumentParser
import ELF
import Foundation
import LivePatch
import LivePatchBuilder

struct MitigateCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "mitigate", abstract: "Derive a patch that makes one function return at once: for a hole without a fix.",
        discussion: """
            It says who calls the function and what they do with the result. The patch is always under review: each finding must be \
            accepted by name when it is applied. Exit: 2 patch written, to be reviewed, or refused; 1 error.
            """)

    @Option(help: "The running build: an ELF file, a .deb, package=version, or pid:PID:OBJECT.") var object: String
    @Option(help: "The function, by symbol, or fn_<address> where it was stripped.") var function: String
    @Option(name: .customLong("return"), help: "What it returns.") var value: Int64
    @Option(name: .shortAndLong, help: "Patch file to write.") var output: String

    func run() throws {
        try Program.run {
            let input = try BuildInput.read(object, cache: PackageCache(folder: PatchStore.cacheFolder))
            guard input.objects.count == 1, let chosen = input.objects.first else {
                throw Failure(
                    "object-not-found", "it holds \(input.objects.count) objects.", at: object,
                    remedy: "Give the ELF file, or pid:PID:OBJECT.")
            }
            let made = try mitigate(
                chosen.bytes, function: function, returning: value,
                BuildContext(object: chosen.path, package: input.package, oldVersion: input.version))
            Output.line("\(Theme.strong(chosen.path))  \(function) would return \(value) at once")
            for (use, text) in [
                (ResultUse.checked, "check the result"), (.ignored, "do not use it"), (.other, "use it in ways that were not followed"),
                (.followed, "use it as an address"),
            ] {
                let names = Set(made.callers.filter { $0.use == use }.map(\.name)).sorted()
                if !names.isEmpty { Output.line("  callers that \(text): \(names.joined(separator: ", "))") }
            }
            if case .patch(let file) = made.result.outcome {
                do { try Data(file).write(to: URL(fileURLWithPath: output), options: .atomic) } catch {
                    throw Failure("output-unwritable", "the patch cannot be written: \(error.localizedDescription).", at: output)
                }
                let m = made.result.manifest, id = PatchID(of: file)
                try Trust().remember(
                    DerivedRecord(
                        id: id.description, oldSHA256: m.oldSHA256, newSHA256: m.newSHA256, oldOrigin: input.origin,
                        newOrigin: "mitigation",
                        tool: m.tool))
                Output.line("  \(Theme.review("review"))  \(output)  id \(id.short)")
            } else {
                Output.line("  \(Theme.exposed("refused"))  no patch was written, because:")
            }
            FindingsText.show(made.result.manifest.findings)
            return Exit.actionNeeded
        }
    }
}
