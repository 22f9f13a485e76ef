// Judges one capture with one rule file and prints a line of JSON per event: what `make conformance` feeds to the evaluation.

import ELF
import Foundation
import Interception
import VirtualPatch

/// `conformance CAPTURE RULES INLINE [ARGUMENTS…]`, with the test's own arguments behind: `-k none`, `--set stream.midstream=true`.
@main
struct Conformance {
    static func main() {
        let words = CommandLine.arguments
        guard words.count >= 4 else { return fail("usage: conformance CAPTURE RULES INLINE [ARGUMENTS]", 64) }
        do { try run(words) } catch { fail("\(error)", 1) }
    }

    static func fail(_ text: String, _ code: Int32) {
        FileHandle.standardError.write(Data((text + "\n").utf8))
        exit(code)
    }

    static func run(_ words: [String]) throws {
        let isInline = words[3] == "1"
        let arguments = words.dropFirst(4).joined(separator: " ")
        let config = ProcessInfo.processInfo.environment["VERIFY_CONFIG"].flatMap { try? String(contentsOfFile: $0, encoding: .utf8) } ?? ""
        var options = EngineOptions()
        options.isStrict = true
        options.enforces = true
        // Captures of sending hosts have unfinished checksums: as the suite runs, they are verified only where a test asks.
        options.verifiesChecksums = arguments.contains("-k all")
        options.picksUpMidstream =
            arguments.contains("midstream=true") || arguments.contains("midstream=yes")
            || !config.matches(of: /\n +midstream: *(true|yes)/).isEmpty
        options.wholeBodyBytes = 8 << 20
        let file = RuleSet.File(name: words[2], bytes: Array(try Data(contentsOf: URL(fileURLWithPath: words[2]))))
        let set = RuleSet.load([file], variables: variables(config))
        for refusal in set.refused { FileHandle.standardError.write(Data("refused \(refusal)\n".utf8)) }
        let engine = try Engine(try CompiledRules(set.rules), options)
        let capture = try Capture(Array(try Data(contentsOf: URL(fileURLWithPath: words[1]))), name: words[1])
        let bytes = capture.bytes
        for record in capture.records {
            guard let packet = record.packet else { continue }
            tell(engine.inspect(packet: bytes.span.extracting(packet), at: record.time), record.number, isInline)
        }
        tell(engine.finish(), nil, isInline)
    }

    /// The suite's default configuration has private networks at home.
    static func variables(_ config: String) -> RuleVariables {
        var variables = RuleVariables.everywhere
        variables.addresses["HOME_NET"] = "[192.168.0.0/16,10.0.0.0/8,172.16.0.0/12]"
        variables.addresses["EXTERNAL_NET"] = "any"
        for match in config.matches(of: /\n +([A-Z_]+): *"?([^"\n#]+)"?/) where variables.addresses[String(match.1)] != nil {
            variables.addresses[String(match.1)] = String(match.2)
        }
        return variables
    }

    static func tell(_ outcome: Engine.Outcome, _ number: Int?, _ isInline: Bool) {
        let packet = number.map(String.init) ?? "null"
        let isDropped = isInline && (outcome.verdict != .pass || outcome.wasCondemned)
        for finding in outcome.findings {
            guard case .alert(let alert) = finding, let sid = alert.sid else { continue }
            let verdict = isDropped ? "drop" : "alert"
            let action = isInline && alert.action != .alert ? "blocked" : "allowed"
            print("{\"sid\": \(sid), \"pcap_cnt\": \(packet), \"verdict\": \"\(verdict)\", \"action\": \"\(action)\"}")
        }
        if isDropped {
            let sid = outcome.decidedBy ?? "null"
            print("{\"sid\": \(sid), \"pcap_cnt\": \(packet), \"verdict\": \"drop\", \"event\": \"drop\"}")
        }
    }
}
