// A request made from a rule fires it, and does not once a literal of the rule is broken: for nearly all rules on HTTP.

import ELF
import Testing
import VirtualPatch

@Suite(.enabled(if: PublicData.isThere, PublicData.absence)) struct GeneratedRequestsTests {
    /// Alone on the wire there is no earlier packet, no second request, and port 80.
    private static func alone(_ rule: Rule) -> Rule {
        var rule = rule
        rule.flowBits = []
        rule.hostBits = []
        rule.threshold = nil
        rule.isSilent = false
        rule.traffic.source = .any
        rule.traffic.destination = .any
        rule.traffic.sourcePorts = .any
        rule.traffic.destinationPorts = .any
        return rule
    }

    @Test func nearlyEveryRuleIsFiredByARequestMadeFromIt() throws {
        let set = RuleSet.load([try PublicData.etOpen()] + (try PublicData.crowdSec()))
        let rules = set.rules.filter { $0.traffic.application == .http && $0.events.isEmpty }.map(Self.alone)
        let engine = try Engine(try CompiledRules(rules))
        func fires(_ exchange: Exchange, _ rule: Rule) -> Bool {
            engine.inspect(request: exchange.request, responses: exchange.response).findings.contains {
                if case .alert(let alert) = $0 { alert.rule == rule.id } else { false }
            }
        }
        var fired = 0, silent = 0
        var dumb: [String] = [], loud: [String] = []
        for rule in rules {
            var way: (plan: RequestPlan, choose: Int)?
            search: for choose in 0..<4 {
                for plan in RequestPlan.allCases {
                    guard let exchange = RequestMaker.exchange(rule, plan, choose: choose), fires(exchange, rule) else {
                        continue
                    }
                    way = (plan, choose)
                    break search
                }
            }
            guard let way else {
                dumb.append("\(rule.id) \(rule.message)")
                continue
            }
            fired += 1
            let literals = RequestMaker.literals(rule.condition, way.choose)
            let isSilent =
                literals.isEmpty
                || literals.contains { literal in
                    RequestMaker.exchange(rule, way.plan, broken: literal, choose: way.choose).map { !fires($0, rule) } ?? false
                }
            if isSilent { silent += 1 } else { loud.append("\(rule.id) \(rule.message)") }
        }
        let share = Double(fired) * 100 / Double(max(1, rules.count))
        print(
            "generated: \(fired) of \(rules.count) rules on HTTP fired by their request (\(share) %), \(silent) of \(fired) silent once broken"
        )
        if !dumb.isEmpty { print("not fired:\n  " + dumb.joined(separator: "\n  ")) }
        if !loud.isEmpty { print("still fired:\n  " + loud.joined(separator: "\n  ")) }
        #expect(rules.count > 2_000)
        #expect(share >= 95)
        #expect(Double(silent) >= 0.95 * Double(fired))
    }
}
