// Every own rule against its own folder: its attacks are caught, by it alone and however they are cut up; its look-alikes pass all.

import ELF
import Foundation
import Interception
import Testing
import VirtualPatch

/// One folder under `Rules/`: `CVE-YEAR-NUMBER-package`.
struct OwnRule: Sendable, CustomTestStringConvertible {
    let folder: String
    let cve: String
    let package: String
    let attacks: [String]
    let benign: [String]
    var testDescription: String { folder }

    static let root = PublicData.package.path + "/Rules"

    static let all: [OwnRule] = ((try? FileManager.default.contentsOfDirectory(atPath: root)) ?? []).sorted().compactMap { name in
        guard let match = name.wholeMatch(of: /(CVE-\d{4}-\d+)-([a-z0-9.+-]+)/) else { return nil }
        let files = ((try? FileManager.default.contentsOfDirectory(atPath: root + "/" + name)) ?? []).sorted()
        return OwnRule(
            folder: name, cve: String(match.1), package: String(match.2), attacks: files.filter { $0.hasPrefix("attack") },
            benign: files.filter { $0.hasPrefix("benign") })
    }

    func bytes(_ file: String) throws -> [UInt8] { Array(try Data(contentsOf: URL(fileURLWithPath: Self.root + "/\(folder)/\(file)"))) }

    var ruleFiles: [RuleSet.File] {
        get throws {
            try ["rule.rules", "rule.yaml"].filter { FileManager.default.fileExists(atPath: Self.root + "/\(folder)/\($0)") }
                .map { RuleSet.File(name: folder + "/" + $0, bytes: try bytes($0)) }
        }
    }

    func text(_ file: String) throws -> String { try String(contentsOfFile: Self.root + "/\(folder)/\(file)", encoding: .utf8) }

    /// The service's port as the rule has it: the port that the folder's files are sent to.
    func port(_ set: RuleSet) -> UInt16 {
        for rule in set.rules {
            if let first = rule.traffic.destinationPorts.text.split(whereSeparator: { !$0.isNumber }).first, let n = UInt16(first) {
                return n
            }
        }
        return 80
    }
}

@Suite struct OwnRulesTests {
    static let set = RuleSet.load((try? OwnRule.all.flatMap { try $0.ruleFiles }) ?? [])

    /// What all own rules say of one file, sent in pieces of so many bytes.
    static func judge(_ rule: OwnRule, _ file: String, pieces: Int? = nil) throws -> (cves: Set<String>, unseen: [Uninspectable.Reason]) {
        var options = EngineOptions()
        options.requestsOnly = true
        let engine = try Engine(try CompiledRules(set.rules), options)
        let own = RuleSet.load(try rule.ruleFiles)
        let isDatagram = file.hasSuffix(".udp")
        var conversation = Conversation(engine, isDatagram ? .udp : .tcp, serverPort: rule.port(own))
        let bytes = try rule.bytes(file)
        var outcome = Engine.Outcome()
        let step = isDatagram ? bytes.count : pieces ?? bytes.count
        for start in stride(from: 0, to: bytes.count, by: step) {
            outcome.add(conversation.send(Array(bytes[start..<min(bytes.count, start + step)])))
        }
        outcome.add(conversation.close())
        outcome.add(engine.finish())
        var cves: Set<String> = [], unseen: [Uninspectable.Reason] = []
        for finding in outcome.findings {
            switch finding {
            case .alert(let a): cves.formUnion(a.cves)
            case .uninspectable(let u): unseen.append(u.reason)
            }
        }
        return (cves, unseen)
    }

    @Test func everyFolderIsARuleAndEveryRuleLoads() throws {
        let folders = try FileManager.default.contentsOfDirectory(atPath: OwnRule.root)
        #expect(Set(folders) == Set(OwnRule.all.map(\.folder)), "a folder is named CVE-YEAR-NUMBER-package")
        #expect(Self.set.refused.isEmpty, "\(Self.set.refused)")
        #expect(Self.set.notes.isEmpty, "\(Self.set.notes)")
        #expect(Self.set.rules.allSatisfy { $0.action == .drop })
    }

    @Test("a folder has its rule, attacks, look-alikes and a page that says where the knowledge is from", arguments: OwnRule.all)
    func folder(_ rule: OwnRule) throws {
        let own = RuleSet.load(try rule.ruleFiles)
        #expect(!own.rules.isEmpty)
        #expect(own.rules.allSatisfy { $0.cves.contains(rule.cve) && !$0.message.isEmpty })
        #expect(rule.attacks.count >= 2 && rule.benign.count >= 2)
        let kinds = [".http", ".tcp", ".udp"]
        for file in rule.attacks + rule.benign { #expect(kinds.contains { file.hasSuffix($0) }, "\(file)") }
        let page = try rule.text("README.md")
        #expect(page.hasPrefix("# \(rule.cve): "))
        for part in ["| Package | \(rule.package)", "| Debian 12 |", "| Source |", "**The fix**", "**The rule**", "**It cannot see**"] {
            #expect(page.contains(part), "README.md of \(rule.folder) lacks '\(part)'")
        }
    }

    @Test("every attack is caught by the rule for its CVE, whole and byte by byte", arguments: OwnRule.all)
    func attacks(_ rule: OwnRule) throws {
        let page = try rule.text("README.md")
        for file in rule.attacks {
            // Byte by byte takes its time; longer files are cut into more than enough pieces anyway.
            for pieces in [nil, try rule.bytes(file).count > 2000 ? 31 : 1, 7] {
                let found = try Self.judge(rule, file, pieces: pieces)
                #expect(found.cves.contains(rule.cve), "\(file) in pieces of \(pieces ?? 0): \(found)")
                for other in found.cves where other != rule.cve {
                    #expect(page.contains(other), "\(file) is caught for \(other) too, and README.md does not say so")
                }
            }
        }
    }

    @Test("every look-alike passes all own rules, whole and byte by byte", arguments: OwnRule.all)
    func benign(_ rule: OwnRule) throws {
        for file in rule.benign {
            for pieces in [nil, try rule.bytes(file).count > 2000 ? 31 : 1] {
                let found = try Self.judge(rule, file, pieces: pieces)
                #expect(found.cves.isEmpty && found.unseen.isEmpty, "\(file): \(found)")
            }
        }
    }

    @Test(.enabled(if: PublicData.isThere, PublicData.absence)) func noBenignRequestMeetsAnOwnRule() throws {
        var options = EngineOptions()
        options.requestsOnly = true
        let compiled = try CompiledRules(Self.set.rules)
        let web = OwnRule.all.filter { rule in rule.benign.contains { $0.hasSuffix(".http") } }
        let ports = Set(try web.map { $0.port(RuleSet.load(try $0.ruleFiles)) })
        var count = 0
        for line in try PublicData.read("crs-benign/negatives-public.jsonl").split(separator: 10) {
            let request = try JSONDecoder().decode(BenignRequest.self, from: Data(line))
            count += 1
            for port in ports {
                let engine = try Engine(compiled, options)
                var conversation = Conversation(engine, .tcp, serverPort: port)
                var outcome = conversation.send(request.bytes)
                outcome.add(conversation.close())
                outcome.add(engine.finish())
                for finding in outcome.findings {
                    if case .alert(let a) = finding { Issue.record("\(request.name), port \(port): \(a.rule) \(a.message)") }
                }
            }
        }
        #expect(count == 497)
    }
}
