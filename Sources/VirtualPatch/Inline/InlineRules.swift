// Which rules can work where requests alone are inspected: one that waits for what a server sends would never match, and that is said.

import ELF

extension RuleSet {
    /// The rules that requests decide; the others move to `refused` (`rule-reads-replies`).
    public func forRequests() -> RuleSet {
        var set = self
        set.rules.removeAll { rule in
            guard rule.readsReplies else { return false }
            set.refused.append(
                Failure(
                    "rule-reads-replies", "rule \(rule.id) looks at what the server sends, which is not inspected in the path of traffic",
                    at: rule.place, remedy: "Write the rule for the request, or use it with `fother rules test` alone."))
            return true
        }
        return set
    }
}

extension Rule {
    /// Holds for nothing that a client sends.
    var readsReplies: Bool { flow.toClient || condition.readsReplies }
}

extension Condition {
    fileprivate var readsReplies: Bool {
        switch self {
        case .all(let parts): parts.contains(where: \.readsReplies)
        case .any(let parts): !parts.isEmpty && parts.allSatisfy(\.readsReplies)
        case .test(let test): [.responseHead, .responseBody].contains(test.buffer.moment)
        }
    }
}
