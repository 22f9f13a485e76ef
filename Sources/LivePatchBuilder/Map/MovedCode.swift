// Which functions of the new build go into the patch: those that changed, everything they need that the old build does
// not have, and the parts of one function together.

import ELF

struct MovedCode: Sendable {
    /// New indices, ascending, with the reason for people.
    private(set) var reasons: [Int: String] = [:]
    var functions: [Int] { reasons.keys.sorted() }

    init(_ c: Comparison) {
        var queue: [Int] = []
        var reasons: [Int: String] = [:]
        func add(_ n: Int, _ reason: String) {
            guard reasons[n] == nil else { return }
            reasons[n] = reason
            queue.append(n)
        }
        let ties = Self.ties(c.new, c.newData)
        for n in c.relation.indices { if case .changed(let why) = c.relation[n] { add(n, why) } }
        while let n = queue.popLast() {
            for g in ties[n] ?? [] { add(g, "part of \(c.new.name(n))") }
            let reached = c.new.functions[n].references.compactMap { c.new.function(at: $0.target) } + c.new.directCallees(of: n)
            for g in reached where c.relation[g] == .added { add(g, "added") }
        }
        self.reasons = reasons
    }

    func contains(_ n: Int) -> Bool { reasons[n] != nil }

    /// Functions that jump into each other's middle, conditionally or through a table to each other: the hot and cold parts
    /// of one.
    private static func ties(_ image: CodeImage, _ data: DataLayout) -> [Int: Set<Int>] {
        var result: [Int: Set<Int>] = [:]
        func tie(_ a: Int, _ b: Int) {
            result[a, default: []].insert(b)
            result[b, default: []].insert(a)
        }
        for f in image.functions {
            for r in f.references where r.kind == .jump || r.kind == .conditionalJump {
                guard let g = image.function(at: r.target), g != f.index else { continue }
                if r.kind == .conditionalJump || image.functions[g].start != r.target { tie(f.index, g) }
            }
        }
        for (address, table) in data.tables {
            guard let owner = data.tableOwner[address] else { continue }
            for target in table.targets { if let g = image.function(at: target), g != owner { tie(owner, g) } }
        }
        return result
    }
}
