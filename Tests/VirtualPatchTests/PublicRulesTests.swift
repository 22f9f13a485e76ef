// All public rules against all public exploits and benign requests: what must be blocked is, and nothing else.

import ELF
import Foundation
import Testing
import VirtualPatch

@Suite(.enabled(if: PublicData.isThere, PublicData.absence)) struct PublicRulesTests {
    @Test func nearlyAllSuricataRulesAreUnderstood() throws {
        let set = RuleSet.load([try PublicData.etOpen()])
        #expect(set.total == 2473)
        #expect(set.rules.count >= 2470)
        for failure in set.refused {
            #expect(failure.place.contains("et.rules:"))
            #expect(!failure.sentence.isEmpty)
        }
    }

    @Test func allCrowdSecRulesAreUnderstoodAndThoseThatNeedLibinjectionAreRefusedByNameWithoutIt() throws {
        let files = try PublicData.crowdSec()
        let without = RuleSet.load(files, allowsInjectionDetector: false)
        #expect(without.total == 206)
        #expect(without.refused.count == 13)
        #expect(without.refused.allSatisfy { $0.code == "rule-needs-libinjection" })
        let with = RuleSet.load(files)
        #expect(with.rules.count == 206 || with.refused.allSatisfy { $0.code == "rule-needs-libinjection" })
    }

    @Test func everyExploitIsBlockedAndWhatMustPassPasses() throws {
        let files = try PublicData.crowdSec()
        let set = RuleSet.load(files)
        let engine = try Engine(try CompiledRules(set.rules))
        var judged = 0
        var wrong: [String] = []
        for name in try PublicData.names("crowdsec-hub/tests") {
            let test = try ExploitTest(name)
            guard test.rules.contains(where: { file in files.contains { $0.name == file } }) else { continue }
            judged += 1
            var blocked = 0
            defer { if blocked == 0 { wrong.append("\(name): nothing blocked") } }
            for (i, request) in test.requests.enumerated() {
                let outcome = engine.inspect(request: request.bytes)
                let isBlocked = outcome.verdict != .pass
                if isBlocked { blocked += 1 }
                if let must = request.mustBlock, isBlocked != must {
                    wrong.append("\(name) request \(i + 1): \(isBlocked ? "blocked" : "passed") \(outcome.findings.count)")
                }
            }
        }
        #expect(judged == 97)
        #expect(wrong.isEmpty, "\(wrong.joined(separator: "\n"))")
    }

    @Test func noBenignRequestIsBlocked() throws {
        let set = RuleSet.load([try PublicData.etOpen()] + (try PublicData.crowdSec()))
        let engine = try Engine(try CompiledRules(set.rules))
        var hits: [String] = []
        var count = 0
        for line in try PublicData.read("crs-benign/negatives-public.jsonl").split(separator: 10) {
            let request = try JSONDecoder().decode(BenignRequest.self, from: Data(line))
            count += 1
            for finding in engine.inspect(request: request.bytes).findings {
                if case .alert(let alert) = finding {
                    hits.append("\(request.name): \(alert.rule) \(alert.message) in \(alert.buffer ?? "-") view \(alert.view)")
                }
            }
        }
        #expect(count == 497)
        #expect(hits.isEmpty, "\(hits.joined(separator: "\n"))")
    }
}
