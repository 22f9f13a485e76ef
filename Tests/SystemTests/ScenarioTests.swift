// The cases that other live patching tools test themselves by, and more: each a file in Fixtures/scenarios that says what it
// is about, what the program answers before and after, and what is expected. Adding one needs no Swift.

import ELF
import Foundation
import LivePatch
import LivePatchApplier
import LivePatchBuilder
import ProcessControl
import Testing

/// One file, by its comment lines `// key: value`:
///   shape    program | library | both: what is fixed
///   before   what the running old build answers
///   after    what it answers once it is patched
///   expect   one of the words in `ScenarioTests.carryOut`; a code may follow
///   flags, link   for gcc, where the case needs any
///   last     after the second fix (`FIXED` is 2), for `replaced`
struct Scenario: Sendable, CustomTestStringConvertible {
    static let folder = Fixture.sources + "/../scenarios"
    static let all: [Scenario] = ((try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? []).sorted()
        .filter { $0.hasSuffix(".c") }.compactMap { try? Scenario($0) }

    let file: String
    let values: [String: String]
    var testDescription: String { String(file.dropLast(2)) }

    init(_ file: String) throws {
        self.file = file
        var values: [String: String] = [:]
        for line in try String(contentsOfFile: Self.folder + "/" + file, encoding: .utf8).split(separator: "\n") where line.hasPrefix("// ")
        {
            let parts = line.dropFirst(3).split(separator: ":", maxSplits: 1)
            guard parts.count == 2, !parts[0].contains(" ") else { continue }
            values[String(parts[0])] = parts[1].trimmingCharacters(in: .whitespaces)
        }
        self.values = values
    }

    subscript(key: String) -> String { values[key] ?? "" }
    func words(_ key: String) -> [String] { self[key].split(separator: " ").map(String.init) }
}

/// A scenario's builds, in a folder that goes with this value.
private final class Built {
    let folder: String
    let scenario: Scenario

    init(_ scenario: Scenario) throws {
        self.scenario = scenario
        folder = FileManager.default.temporaryDirectory.appendingPathComponent("fother-scenario-\(UUID().uuidString)").path
        for fix in 0...(scenario["last"].isEmpty ? 1 : 2) {
            let side = folder + "/\(fix)"
            try FileManager.default.createDirectory(atPath: side, withIntermediateDirectories: true)
            let define = fix > 0 ? ["-DFIXED=\(fix)"] : []
            if scenario["shape"] != "program" {
                try compile(side + "/libscenario.so", define + ["-DLIBRARY", "-shared", "-fPIC", "-Wl,-soname,libscenario.so"])
            }
            if fix == 0 || scenario["shape"] != "library" {
                try compile(
                    side + "/program", define + (scenario["shape"] == "program" ? [] : ["-L", side, "-lscenario", "-Wl,-rpath,$ORIGIN"]))
            }
        }
    }
    deinit { try? FileManager.default.removeItem(atPath: folder) }

    private func compile(_ output: String, _ arguments: [String]) throws {
        _ = try ChildProcess.runChecked(
            ["gcc", "-O2", "-Wall", "-pthread", "-Wl,--build-id", "-s", "-o", output, Scenario.folder + "/" + scenario.file]
                + scenario.words("flags") + arguments + scenario.words("link"))
    }

    var objects: [String] {
        switch scenario["shape"] {
        case "program": ["program"]
        case "both": ["program", "libscenario.so"]
        default: ["libscenario.so"]
        }
    }

    func result(_ object: String, fix: Int = 1) throws -> BuildResult {
        try build(
            old: RegularFile.read(folder + "/0/" + object), new: RegularFile.read(folder + "/\(fix)/" + object),
            BuildContext(object: object))
    }
}

/// The program of a scenario, running its old build.
private struct Player {
    let child: ChildProcess
    init(_ built: Built) throws {
        child = try ChildProcess([built.folder + "/0/program"], input: .pipe, output: .pipe)
        #expect(try child.readLine() == "ready")
    }
    func say(_ line: String) throws -> String {
        try child.write(line + "\n")
        return try child.readLine() ?? "(gone)"
    }
    var answer: String { get throws { try say("ask") } }
}

extension SystemTests {
    @Suite struct ScenarioTests {
        @Test("no case is lost") func complete() { #expect(Scenario.all.count >= 40) }

        @Test("a scenario ends as it says", arguments: Scenario.all)
        func carryOut(_ scenario: Scenario) throws {
            let built = try Built(scenario), words = scenario.words("expect"), code = words.count > 1 ? words[1] : ""
            func refused(by findings: [Finding], _ code: String) {
                #expect(!findings.isEmpty && (code.isEmpty || findings.contains { $0.code == code }), "\(findings.map(\.key))")
            }
            var patches: [LivePatch] = []
            for (object, fix) in built.objects.map({ ($0, 1) }) + (scenario["last"].isEmpty ? [] : [(built.objects[0], 2)]) {
                let result: BuildResult
                do { result = try built.result(object, fix: fix) } catch {
                    #expect(words[0] == "refused" && (error as? Failure)?.code == code, "\(error)")
                    return
                }
                // These programs have no sources that could be compared: that is not what they are about.
                let findings = result.manifest.findings.filter { $0.code != "layout-unproved" }
                switch result.outcome {
                case .nothingToDo:
                    #expect(scenario["expect"] == "nothing to do")
                    return
                case .refused:
                    #expect(words[0] == "refused" || words.contains("or"), "\(findings.map(\.key))")
                    if words[0] == "refused", !words.contains("or") { refused(by: findings, code) }
                    return
                case .patch(let file):
                    #expect(words[0] != "refused" || words.contains("or"), "it was not refused")
                    if words[0] == "review" {
                        #expect(result.manifest.verdict == .review)
                        refused(by: findings, code)
                    } else if !words.contains("or") {
                        #expect(findings.isEmpty, "\(findings.map(\.key))")
                    }
                    patches.append(try LivePatch(parsing: file, name: object))
                }
            }
            try play(scenario, built, patches)
        }

        private func play(_ scenario: Scenario, _ built: Built, _ patches: [LivePatch]) throws {
            let player = try Player(built), id = player.child.id
            let held: @Sendable (PatchID) -> LivePatch? = { id in patches.first { $0.id == id } }
            var applier = Applier(Tracer(), held: held)
            // Nobody is let through who has not left: whether that may be is not what these are about.
            applier.budget.mustSwitchTogether = true
            var impatient = applier
            impatient.budget.attemptsMax = 5
            #expect(try player.answer == scenario["before"])
            switch scenario["expect"] {
            case "patched after leave":
                #expect(try player.say("enter") == "entered")
                #expect(impatient.apply(patches[0], to: id).word.hasPrefix("blocked"))
                #expect(try player.answer == scenario["before"])
                #expect(try player.say("leave") == "left")
            case "patched, entered": #expect(try player.say("enter") == "entered")
            default: break
            }
            let first = scenario["expect"] == "replaced" ? [patches[0]] : patches
            for patch in first { #expect(applier.apply(patch, to: id).word == "patched") }
            // Constructors have run: what they did stays.
            if scenario.words("expect")[0] != "review" { #expect(try player.answer == scenario["after"]) }
            for patch in first { #expect(applier.apply(patch, to: id).word == "already patched") }
            switch scenario["expect"] {
            case "patched, reverted after leave":
                #expect(try player.say("enter") == "entered")
                #expect(impatient.revert(patches[0], in: id).word.hasPrefix("blocked"))
                #expect(try player.answer == scenario["after"])
                #expect(try player.say("leave") == "left")
            case "replaced":
                let outcome = applier.apply(patches[1], to: id)
                guard case .patched(let report) = outcome else {
                    Issue.record("the second was not applied: \(outcome)")
                    return
                }
                #expect(report.replaced == [patches[0].id])
                #expect(try player.answer == scenario["last"])
                #expect(applier.revert(patches[0], in: id).word == "not patched")
                #expect(applier.revert(patches[1], in: id).word == "reverted")
                #expect(try player.answer == scenario["before"])
                return
            default: break
            }
            for patch in patches { #expect(applier.revert(patch, in: id).word == "reverted") }
            #expect(try player.answer == scenario["before"])
            for patch in patches { #expect(applier.revert(patch, in: id).word == "not patched") }
        }
    }
}
