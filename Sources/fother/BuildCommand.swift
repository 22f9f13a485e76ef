// `fother build OLD NEW`: derives patches from two builds.

import ArgumentParser
import ELF
import Foundation
import LivePatch
import LivePatchBuilder

struct BuildCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "build", abstract: "Derive a live patch by comparing the vulnerable build with the fixed one.",
        discussion: """
            OLD and NEW are each an ELF file, a .deb, or package=version (what is installed, else from the archive; nothing is \
            installed and the system's configuration stays as it is). OLD may also be pid:PID:OBJECT, the file behind a mapping.

            With --source PACKAGE=VERSION and --patch or --revert, one fix is built for the package as it is installed: its Debian source \
            is built twice by its own rules, as nobody and without network. With --patch the build without the fix must be the installed one; with --revert the patch is for the build that is made without it.

            A refusal writes no file. Exit: 0 patch written or nothing to do, 2 refused or to be reviewed, 1 error.
            """)

    @Argument(help: "The vulnerable build; not with --source.") var old: String?
    @Argument(help: "The fixed build; not with --self or --source.") var new: String?
    @Option(name: .shortAndLong, help: "Patch file to write, or a folder when several objects changed.") var output: String?
    @Option(help: "Consider only this ELF object of a package.") var object: String?
    @Flag(name: .customLong("self"), help: "Move functions of OLD without changing them: what it does to a process is what patching costs.")
    var itself = false
    @Option(help: "With --self: the functions to move, separated by commas, or all that can be.") var functions = "all"
    @Option(help: "With --self and all functions: leave these out, for example those that never leave a stack.") var except: String = ""
    @Flag(name: .customLong("no-sources"), help: "Do not fetch and compare the source packages of both versions.") var noSources = false
    @Option(name: .customLong("old-source"), help: "With --new-source: unpacked sources to compare, instead of those of the archive.")
    var oldSource: String?
    @Option(name: .customLong("new-source"), help: "See --old-source.") var newSource: String?
    @Option(name: .customLong("debug-dir"), help: "A folder of separate debug files, besides /usr/lib/debug (may be repeated).")
    var debugFolders: [String] = []
    @Option(help: "Build this installed PACKAGE=VERSION from its source, with and without one fix.") var source: String?
    @Option(help: "With --source: the fix (may be repeated, in order).") var patch: [String] = []
    @Option(help: "With --source: a fix that the source has; the build without it is the vulnerable one (may be repeated, in order).")
    var revert: [String] = []
    @Flag(name: .customLong("install-build-deps"), help: "With --source: install what the build needs, as root and for good.")
    var installBuildDependencies = false
    @Flag(help: "Show function by function what changed: lines of source where it is at hand, else instructions side by side.")
    var explain = false
    @Flag(help: "Print JSON, schema fother.build/1.") var json = false

    func validate() throws {
        if (oldSource == nil) != (newSource == nil) { throw ValidationError("--old-source and --new-source belong together.") }
        if source != nil {
            guard old == nil, !itself, !(patch + revert).isEmpty else {
                throw ValidationError("--source takes --patch or --revert, and no builds.")
            }
            return
        }
        guard patch.isEmpty, revert.isEmpty, old != nil else {
            throw ValidationError(old == nil ? "A build is needed." : "--patch and --revert need --source.")
        }
        if itself == (new != nil) {
            throw ValidationError(itself ? "--self takes one build." : "A second build is needed to compare with.")
        }
    }

    struct Result: Encodable {
        var object: String
        /// `patch`, `nothing-to-do`, `refused` or `failed`.
        var outcome: String
        var file: String?
        var id: String?
        var manifest: Manifest?
        var statistics: BuildStatistics?
        var failure: FailureValue?
    }
    struct Report: Encodable {
        var schema = "fother.build/1"
        /// With `--source`: the folder that holds both builds, `unfixed/NAME` and `fixed/NAME`.
        var kept: String?
        var results: [Result]
    }

    func run() throws {
        try Program.run {
            let plan = try plan()
            var results = plan.failures.map { Result(object: $0.object, outcome: "failed", failure: FailureValue($0.failure)) }
            var files: [(Result, [UInt8])] = []
            var explanations: [String: [FunctionChange]] = [:]
            for pair in plan.pairs {
                Output.progress("comparing \(pair.path)")
                var result = Result(object: pair.path, outcome: "failed")
                do {
                    let built =
                        try itself ? buildItself(pair.old, moving: choice, pair.context) : build(old: pair.old, new: pair.new, pair.context)
                    result.manifest = built.manifest
                    result.statistics = built.statistics
                    explanations[pair.path] = built.explanation
                    switch built.outcome {
                    case .nothingToDo: result.outcome = "nothing-to-do"
                    case .refused: result.outcome = "refused"
                    case .patch(let bytes):
                        result.outcome = "patch"
                        result.id = PatchID(of: bytes).description
                        files.append((result, bytes))
                    }
                } catch let failure as Failure {
                    result.failure = FailureValue(failure)
                }
                results.append(result)
            }
            Output.progressDone()
            try write(files, &results)
            for (result, _) in files {
                guard let id = result.id, let m = result.manifest else { continue }
                try Trust().remember(
                    DerivedRecord(
                        id: id, oldSHA256: m.oldSHA256, newSHA256: m.newSHA256, oldOrigin: plan.origins.old, newOrigin: plan.origins.new,
                        tool: m.tool))
            }
            if json { try Output.json(Report(kept: plan.kept, results: results)) } else { show(results, plan, explanations) }
            let needsAction = results.contains { $0.outcome == "refused" || $0.outcome == "failed" || $0.manifest?.verdict == .review }
            return needsAction ? Exit.actionNeeded : Exit.done
        }
    }

    private var choice: FunctionChoice {
        func names(_ list: String) -> [String] { list.split(separator: ",").map(String.init) }
        return functions == "all" ? .all(except: Set(names(except))) : .named(names(functions))
    }

    /// One patch goes to the file that was named; several go into the folder that was named.
    private func write(_ files: [(Result, [UInt8])], _ results: inout [Result]) throws {
        for (result, bytes) in files {
            let name = (result.object as NSString).lastPathComponent + "-" + (result.manifest?.buildID.prefix(8) ?? "") + ".fother"
            var path = output ?? name
            if let output, files.count > 1 || Self.isFolder(output) {
                do { try FileManager.default.createDirectory(atPath: output, withIntermediateDirectories: true) } catch {
                    throw Failure("output-unwritable", "the folder cannot be made: \(error.localizedDescription).", at: output)
                }
                path = output + "/" + name
            }
            do { try Data(bytes).write(to: URL(fileURLWithPath: path), options: .atomic) } catch {
                throw Failure("output-unwritable", "the patch cannot be written: \(error.localizedDescription).", at: path)
            }
            if let i = results.firstIndex(where: { $0.object == result.object }) { results[i].file = path }
        }
    }

    private static func isFolder(_ path: String) -> Bool {
        (try? FileManager.default.attributesOfItem(atPath: path))?[.type] as? FileAttributeType == .typeDirectory
    }

    private func show(_ results: [Result], _ plan: BuildPlan, _ explanations: [String: [FunctionChange]]) {
        if let title = plan.title { Output.line(title) }
        if let changelog = plan.changelog {
            if !changelog.named.isEmpty { Output.line("named in the changelog between them: \(changelog.named.joined(separator: ", "))") }
            if !changelog.isComplete {
                Output.line(Theme.review("the changelog does not hold both versions: more may have been fixed than it names"))
            }
        }
        if results.isEmpty { Output.line("No object differs: there is nothing to patch.") }
        for e in plan.evidence { EvidenceText.show(e) }
        for result in results {
            Output.line()
            Output.line(Theme.strong(result.object))
            if let f = result.failure { Output.line("  \(Theme.exposed("failed"))  \(f.sentence) \(f.remedy)  [\(f.code)]") }
            if let s = result.statistics {
                Output.line(
                    "  \(s.newFunctions) functions: \(s.same) the same"
                        + (s.linesOnly > 0 ? ", \(s.linesOnly) with other line numbers" : "")
                        + ", \(s.changed) changed, \(s.added) added")
            }
            switch result.outcome {
            case "nothing-to-do": Output.line("  \(Theme.good("nothing to do"))  no function differs; a process gains nothing from a patch")
            case "refused": Output.line("  \(Theme.exposed("refused"))  no patch was written, because:")
            case "patch":
                let verdict = result.manifest?.verdict == .pass ? Theme.good("pass") : Theme.review("review")
                Output.line("  \(verdict)  \(result.file ?? "")  id \(result.id?.prefix(12) ?? "")")
            default: break
            }
            if let manifest = result.manifest { FindingsText.show(manifest.findings) }
            if let functions = explanations[result.object], explain {
                ExplanationText.show(functions, sources: plan.evidence.flatMap(\.changes))
            }
        }
    }
}

/// Evidence for people: what was looked at besides the two files, and what it says.
enum EvidenceText {
    static func show(_ e: LayoutEvidence) {
        if !e.note.isEmpty { Output.line(Theme.quiet("\(e.name): \(e.note)")) }
        switch e.answer {
        case .agrees:
            Output.line("\(Theme.good("\(e.name) agrees"))  nothing outside functions differs: live data keeps its layout and meaning")
        case .differs: Output.line("\(Theme.review("\(e.name) differs"))  more than statements changed: see the findings")
        case .unknown: Output.line("\(Theme.review("\(e.name) cannot tell"))  whether live data keeps its layout: see the findings")
        case .absent: Output.line("\(Theme.quiet("no \(e.name)"))  \(e.reason)")
        }
    }
}

/// Findings for people: what refuses first, and not all of a hundred.
enum FindingsText {
    static let reviewsMax = 10

    static func show(_ findings: [Finding]) {
        let refusing = findings.filter { $0.verdict == .refuse }, others = findings.filter { $0.verdict != .refuse }
        for f in refusing { show(f) }
        for f in others.prefix(reviewsMax) { show(f) }
        if others.count > reviewsMax { Output.line("    and \(others.count - reviewsMax) more to review (--json lists all)") }
    }

    private static func show(_ f: Finding) {
        let paint = f.verdict == .refuse ? Theme.exposed : Theme.review
        Output.line("    \(paint(f.key))  \(f.sentence)")
        if !f.remedy.isEmpty { Output.line("      " + Theme.quiet(f.remedy)) }
    }
}
