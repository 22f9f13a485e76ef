// `fother rules`: what virtual patches there are, what they look for, and what they say about given traffic.

import ArgumentParser
import ELF
import Foundation
import ProcessControl
import VirtualPatch

struct RulesCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "rules", abstract: "Check, list and explain rules of virtual patches, and try them on requests and captures.",
        subcommands: [RulesCheckCommand.self, RulesListCommand.self, RulesExplainCommand.self, RulesTestCommand.self])
}

/// Rule files from the command line: files, or folders whose rule files are taken. Without any: Fother's own rules.
enum RuleFiles {
    static let endings = [".rules", ".yaml", ".yml"]

    /// Fother's own rules: beside an installed program, or in the checkout it was built from.
    static func ownFolder() throws(Failure) -> String {
        let program = URL(fileURLWithPath: (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")) ?? "")
        let beside = program.deletingLastPathComponent()
        let candidates = ["../share/fother/rules", "../../../Rules"].map { beside.appendingPathComponent($0).standardizedFileURL.path }
        guard let found = candidates.first(where: { FileManager.default.fileExists(atPath: $0) }) else {
            throw Failure(
                "own-rules-missing", "Fother's own rules are not beside the program", at: candidates.joined(separator: ", "),
                remedy: "Name rule files, run it from a checkout, or install with: make install")
        }
        return found
    }

    static func read(_ named: [String]) throws -> [RuleSet.File] {
        var files: [RuleSet.File] = []
        let paths = named.isEmpty ? [try ownFolder()] : named
        for path in paths {
            let kind = try? FileManager.default.attributesOfItem(atPath: path)[.type] as? FileAttributeType
            var names = [path]
            if kind == .typeDirectory {
                names = try FileManager.default.subpathsOfDirectory(atPath: path).sorted()
                    .filter { name in endings.contains { name.hasSuffix($0) } }.map { path + "/" + $0 }
            }
            for name in names {
                files.append(RuleSet.File(name: name, bytes: try RegularFile.read(name)))
            }
        }
        return files
    }
}

struct RulesCheckCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "check", abstract: "Say which rules Fother understands, and why it refuses the others.")

    @Argument(help: "Rule files (Suricata language; CrowdSec's .yaml), or folders of them; without any, Fother's own rules.")
    var files: [String] = []
    @Flag(help: "Print JSON, schema fother.rulescheck/1.") var json = false

    struct Report: Encodable {
        var schema = "fother.rulescheck/1"
        var loaded: Int
        var total: Int
        var classes: [String: Int]
        var refused: [FailureValue]
        var notes: [String]
    }

    func run() throws {
        try Program.run {
            let set = RuleSet.load(try RuleFiles.read(files))
            var classes: [String: Int] = [:]
            for rule in set.rules { classes[rule.streaming.name, default: 0] += 1 }
            if json {
                try Output.json(
                    Report(
                        loaded: set.rules.count, total: set.total, classes: classes, refused: set.refused.map(FailureValue.init),
                        notes: set.notes))
            } else {
                for failure in set.refused {
                    Output.line("\(failure.place): \(failure.sentence)  " + Theme.quiet("[\(failure.code)]"))
                }
                for note in set.notes { Output.line(Theme.review("note ") + note) }
                let text = "\(set.rules.count) of \(set.total) loaded"
                Output.line(set.refused.isEmpty ? Theme.good(text) : Theme.review(text))
            }
            return set.refused.isEmpty ? Exit.done : Exit.actionNeeded
        }
    }
}

/// A rule as JSON carries it.
struct RuleValue: Encodable {
    var id: String
    var cves: [String]
    var message: String
    var action: String
    var service: String
    var streaming: String
    var place: String
    var conditions: [String]

    init(_ rule: Rule) {
        id = rule.id
        cves = rule.cves
        message = rule.message
        action = rule.action.rawValue
        service = rule.service
        streaming = rule.streaming.name
        place = rule.place
        conditions = rule.explanation
    }
}

struct RulesListCommand: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "list", abstract: "List rules with their CVEs.")

    @Argument(help: "Rule files, or folders of them; without any, Fother's own rules.") var files: [String] = []
    @Flag(help: "Print JSON, schema fother.rules/1.") var json = false

    struct Report: Encodable {
        var schema = "fother.rules/1"
        var rules: [RuleValue]
    }

    func run() throws {
        try Program.run {
            let rules = RuleSet.load(try RuleFiles.read(files)).rules
            if json {
                try Output.json(Report(rules: rules.map(RuleValue.init)))
            } else {
                var table = Table("RULE", "CVE", "ON", "CLASS", "WHAT")
                for rule in rules {
                    table.add(
                        .init(rule.id), .init(rule.cves.first.map { $0 + (rule.cves.count > 1 ? " +\(rule.cves.count - 1)" : "") } ?? "-"),
                        .init(rule.service), .init(rule.streaming.name), .init(rule.message))
                }
                table.print()
            }
            return Exit.done
        }
    }
}

struct RulesExplainCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "explain", abstract: "Say in words what a rule looks for: by its id, or all rules for a CVE.")

    @Argument(help: "A rule's id, or a CVE.") var what: String
    @Option(help: "Rule files, or folders of them; without any, Fother's own rules.", completion: .file()) var rules: [String] = []
    @Flag(help: "Print JSON, schema fother.rules/1.") var json = false

    func run() throws {
        try Program.run {
            let wanted = what.uppercased()
            let found = RuleSet.load(try RuleFiles.read(rules)).rules.filter { $0.id == what || $0.cves.contains(wanted) }
            guard !found.isEmpty else {
                throw Failure(
                    "rule-not-found", "no loaded rule has this id or names this CVE", at: what,
                    remedy: "fother rules check says what was refused.")
            }
            if json {
                try Output.json(RulesListCommand.Report(rules: found.map(RuleValue.init)))
                return Exit.done
            }
            for (i, rule) in found.enumerated() {
                if i > 0 { Output.line() }
                Output.line(Theme.strong(rule.id) + "  " + rule.message)
                func row(_ name: String, _ text: String) {
                    Output.line("  " + Theme.quiet(name + String(repeating: " ", count: max(1, 10 - name.count))) + text)
                }
                row("for", rule.cves.isEmpty ? "no CVE named" : rule.cves.joined(separator: ", "))
                row("on", rule.service)
                row("class", rule.streaming.name + ", " + rule.streaming.meaning)
                row("stands in", rule.place)
                row("looks for", "")
                for line in rule.explanation { Output.line("    " + line) }
            }
            return Exit.done
        }
    }
}

extension StreamingClass {
    var meaning: String {
        switch self {
        case .streaming: "exact in bodies and streams of any length"
        case .endOfBuffer: "decided when the body ends, whose last bytes wait for that"
        case .whole: "needs the whole body; a longer one is uninspectable for this rule"
        }
    }
}
