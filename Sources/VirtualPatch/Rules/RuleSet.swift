// Loads rule files of all languages: what was understood, what was refused and why.

import ELF

/// Rules that were understood completely, and the refusals of the others.
public struct RuleSet: Sendable {
    public internal(set) var rules: [Rule] = []
    public internal(set) var refused: [Failure] = []
    /// What was understood and cannot work as it stands: a rule that waits for a bit which no loaded rule sets.
    public internal(set) var notes: [String] = []

    /// Rules that stand in the files, loaded or not.
    public var total: Int { rules.count + refused.count }

    /// One file's name, for places, and its bytes.
    public struct File: Sendable {
        public var name: String
        public var bytes: [UInt8]
        public init(name: String, bytes: [UInt8]) {
            self.name = name
            self.bytes = bytes
        }
    }

    public init() {}

    /// Rules in the Suricata language, or CrowdSec's YAML where the name ends so.
    public static func load(
        _ files: [File], variables: RuleVariables = .everywhere, allowsInjectionDetector: Bool = true
    ) -> RuleSet {
        var set = RuleSet()
        for file in files {
            if file.name.hasSuffix(".yaml") || file.name.hasSuffix(".yml") {
                do throws(Failure) {
                    set.rules.append(
                        try CrowdSecRuleReader.read(
                            file.bytes, file: file.name,
                            canDetectInjection: allowsInjectionDetector && InjectionDetector.isAvailable))
                } catch { set.refused.append(error) }
                continue
            }
            guard file.bytes.count <= SuricataText.fileLimitBytes else {
                set.refused.append(Failure("rule-malformed", "the file is longer than \(SuricataText.fileLimitBytes) bytes", at: file.name))
                continue
            }
            SuricataText.forEachRule(file.bytes) { line, text in
                do throws(Failure) {
                    set.rules.append(try SuricataRuleReader.read(text, file: file.name, line: line, variables: variables))
                } catch { set.refused.append(error) }
            }
        }
        set.refuseDuplicates()
        set.noteBits()
        for i in set.rules.indices { set.rules[i].streaming = StreamingClass.classify(set.rules[i]) }
        return set
    }

    private mutating func refuseDuplicates() {
        var best: [String: Int] = [:]
        for rule in rules { best[rule.id] = max(best[rule.id] ?? -1, rule.revision) }
        guard best.count < rules.count else { return }
        var kept: [Rule] = []
        var seen: Set<String> = []
        for rule in rules {
            if rule.revision == best[rule.id], seen.insert(rule.id).inserted {
                kept.append(rule)
            } else {
                refused.append(
                    Failure(
                        "rule-duplicate", "the id \(rule.id) stands twice; the highest revision that came first is kept", at: rule.place))
            }
        }
        rules = kept
    }

    private mutating func noteBits() {
        var set: Set<String> = [], hostSet: Set<String> = []
        for rule in rules {
            for bit in rule.flowBits where bit.operation == .set || bit.operation == .toggle { set.formUnion(bit.names) }
            for bit in rule.hostBits where bit.operation == .set || bit.operation == .toggle { hostSet.insert(bit.name) }
        }
        for rule in rules {
            for bit in rule.flowBits where bit.operation == .isset && set.isDisjoint(with: bit.names) {
                notes.append(
                    "\(rule.place): rule \(rule.id) waits for the flowbit \(bit.names.joined(separator: " or ")), which no loaded rule sets"
                )
            }
            for bit in rule.hostBits where bit.operation == .isset && !hostSet.contains(bit.name) {
                notes.append("\(rule.place): rule \(rule.id) waits for the xbit \(bit.name), which no loaded rule sets")
            }
        }
    }
}
