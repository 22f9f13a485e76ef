// Decides which function of the new build is which function of the old one: by name, by unique code, by who refers to
// whom, by the order in which the linker put them, and only then by similarity.

import ELF

struct Correlation: Sendable {
    /// On what a match rests, strongest first.
    enum Basis: Int, Comparable, Sendable {
        case name, code, references, order, similarity
        static func < (a: Basis, b: Basis) -> Bool { a.rawValue < b.rawValue }
    }

    private(set) var newOf: [Int?]
    private(set) var oldOf: [Int?]
    /// By new index.
    private(set) var basis: [Basis?]

    private let old: CodeImage
    private let new: CodeImage
    private var oldProfiles: [Int: CodeProfile] = [:]
    private var newProfiles: [Int: CodeProfile] = [:]

    /// Functions shorter than this are too common for equal code to mean the same function.
    static let tellingBytes = 16
    static let similarEnough = 0.5
    /// Gaps larger than this (old x new functions) are not aligned by similarity.
    static let gapCellsMax = 250_000

    init(_ old: CodeImage, _ new: CodeImage) {
        self.old = old
        self.new = new
        newOf = Array(repeating: nil, count: old.functions.count)
        oldOf = Array(repeating: nil, count: new.functions.count)
        basis = Array(repeating: nil, count: new.functions.count)
        matchNames()
        matchUniqueCode()
        repeat { matchReferences() } while alignGaps(bySimilarity: false)
        repeat { matchReferences() } while alignGaps(bySimilarity: true)
        matchPointerTables()
        matchReferences()
        confirm()
    }

    /// Every function is itself: for moving code of one build without changing it.
    init(itself image: CodeImage) {
        old = image
        new = image
        newOf = image.functions.map(\.index)
        oldOf = newOf
        basis = newOf.map { _ in .code }
    }

    private mutating func match(_ o: Int, _ n: Int, _ b: Basis) {
        guard newOf[o] == nil, oldOf[n] == nil else { return }
        newOf[o] = n
        oldOf[n] = o
        basis[n] = b
    }

    func isSameCode(_ o: Int, _ n: Int) -> Bool { old.functions[o].normalized == new.functions[n].normalized }

    private mutating func matchNames() {
        func unique(_ image: CodeImage) -> [String: Int] {
            var seen: [String: Int?] = [:]
            for f in image.functions { for key in f.keys { seen[key] = seen[key] == nil ? f.index : .some(nil) } }
            return seen.compactMapValues { $0 }
        }
        let byName = unique(old)
        for (name, n) in unique(new).sorted(by: { $0.key < $1.key }) { if let o = byName[name] { match(o, n, .name) } }
    }

    private mutating func matchUniqueCode() {
        func unique(_ image: CodeImage, _ taken: [Int?]) -> [[UInt8]: Int] {
            var seen: [[UInt8]: Int?] = [:]
            for f in image.functions where taken[f.index] == nil && f.size >= Self.tellingBytes {
                seen[f.normalized] = seen[f.normalized] == nil ? f.index : .some(nil)
            }
            return seen.compactMapValues { $0 }
        }
        let byCode = unique(old, newOf)
        for (code, n) in unique(new, oldOf) { if let o = byCode[code] { match(o, n, .code) } }
    }

    // MARK: References

    /// Pairs of references that stand for the same source expression in a matched pair of functions.
    func referencePairs(_ o: Int, _ n: Int) -> [(Reference, Reference)] {
        let a = old.functions[o], b = new.functions[n]
        if a.normalized == b.normalized, a.references.count == b.references.count { return Array(zip(a.references, b.references)) }
        var byInstruction: [Int: Reference] = [:]
        for r in b.references { byInstruction[r.instruction] = r }
        var partner: [Int: Int] = [:]
        for (i, j) in Alignment.pairs(a.instructions.map(shape), b.instructions.map(shape)) { partner[i] = j }
        return a.references.compactMap { r in partner[r.instruction].flatMap { byInstruction[$0] }.map { (r, $0) } }
    }

    private mutating func matchReferences() {
        // A vote of unchanged code counts more than one of code that changed and was lined up.
        var queue = oldOf.indices.filter { oldOf[$0] != nil }
        var votes: [Int: [Int: Int]] = [:]
        var seen: Set<Int> = []
        while !queue.isEmpty {
            var touched: Set<Int> = []
            for n in queue {
                guard let o = oldOf[n], seen.insert(n).inserted else { continue }
                let weight = isSameCode(o, n) ? 4 : 1
                for (a, b) in referencePairs(o, n) {
                    guard let f = old.function(at: a.target), let g = new.function(at: b.target), newOf[f] == nil, oldOf[g] == nil,
                        old.functions[f].start == a.target, new.functions[g].start == b.target
                    else { continue }
                    votes[g, default: [:]][f, default: 0] += weight
                    touched.insert(g)
                }
            }
            queue = []
            // Strongest first, so that a clear case settles the doubtful ones.
            for g in touched.sorted() where oldOf[g] == nil {
                let candidates = (votes[g] ?? [:]).filter { newOf[$0.key] == nil }.sorted { ($0.value, $1.key) > ($1.value, $0.key) }
                guard let best = candidates.first, candidates.count == 1 || best.value > 2 * candidates[1].value else { continue }
                let rivals = votes.contains { $0.key != g && oldOf[$0.key] == nil && ($0.value[best.key] ?? 0) * 2 >= best.value }
                guard !rivals else { continue }
                guard best.value >= 4 || similarity(best.key, g) >= 0.4 else { continue }
                match(best.key, g, .references)
                queue.append(g)
            }
        }
    }

    /// Tables of function pointers keep their order: an unmatched pointer between matched neighbours is the same one.
    private mutating func matchPointerTables() {
        for (o, n) in pointerPairs() where newOf[o] == nil && oldOf[n] == nil && similarity(o, n) >= 0.3 { match(o, n, .references) }
    }

    /// Function pointers in data that stand at the same place between pointers known to be the same.
    private func pointerPairs() -> [(Int, Int)] {
        func pointers(_ image: CodeImage) -> [(address: LinkAddress, function: Int)] {
            image.file.relocations.compactMap { r in
                guard let target = image.target(of: r), let f = image.function(at: target), image.functions[f].start == target,
                    !image.isGOT(r.address)
                else { return nil }
                return (r.address, f)
            }.sorted { $0.address < $1.address }
        }
        // Only sure matches are anchors.
        func sure(_ n: Int?) -> Int? { n.flatMap { basis[$0].map { $0 <= .references } ?? false ? $0 : nil } }
        let a = pointers(old), b = pointers(new)
        let tokensA = a.map { sure(newOf[$0.function]) ?? -1 }, tokensB = b.map { sure($0.function) ?? -2 }
        var result: [(Int, Int)] = []
        var last = (-1, -1)
        for (i, j) in Alignment.pairs(tokensA, tokensB) + [(a.count, b.count)] {
            // The same distance from the anchor in bytes, not only in number: the same slots of the same table.
            if i - last.0 == j - last.1, i - last.0 > 1 {
                for k in 1..<i - last.0 {
                    let p = a[last.0 + k], q = b[last.1 + k]
                    let anchor = last.0 >= 0 ? (a[last.0].address, b[last.1].address) : (i < a.count ? (a[i].address, b[j].address) : nil)
                    if let anchor, p.address - anchor.0 == q.address - anchor.1 { result.append((p.function, q.function)) }
                }
            }
            last = (i, j)
        }
        return result
    }

    private mutating func similarity(_ o: Int, _ n: Int) -> Double {
        let a = oldProfiles[o] ?? CodeProfile(old.functions[o])
        let b = newProfiles[n] ?? CodeProfile(new.functions[n])
        oldProfiles[o] = a
        newProfiles[n] = b
        return a.similarity(b)
    }

    /// A match by place or likeness that unchanged callers, or a table of pointers, bear out rests on them from now on;
    /// one that they contradict stays unconfirmed.
    private mutating func confirm() {
        var votes: [Int: [Int: Int]] = [:]
        for n in oldOf.indices {
            guard let o = oldOf[n], isSameCode(o, n), let b = basis[n], b <= .references else { continue }
            for (a, b) in zip(old.functions[o].references, new.functions[n].references) {
                guard let f = old.function(at: a.target), let g = new.function(at: b.target), old.functions[f].start == a.target,
                    new.functions[g].start == b.target
                else { continue }
                votes[g, default: [:]][f, default: 0] += 1
            }
        }
        for (f, g) in pointerPairs() { votes[g, default: [:]][f, default: 0] += 1 }
        for n in oldOf.indices {
            guard let o = oldOf[n], let b = basis[n], b > .references, let v = votes[n], v.count == 1, v[o] != nil else { continue }
            basis[n] = .references
        }
    }

    // MARK: Order

    /// Matches what stands between neighbours that are matched. True when anything was.
    private mutating func alignGaps(bySimilarity: Bool) -> Bool {
        let matched = oldOf.indices.compactMap { n in oldOf[n].map { (o: $0, n: n) } }.sorted { $0.o < $1.o }
        let anchors = Alignment.increasing(matched.map(\.n)).map { matched[$0] } + [(o: old.functions.count, n: new.functions.count)]
        var last = (o: -1, n: -1)
        var found = false
        for anchor in anchors {
            let a = (last.o + 1..<max(last.o + 1, anchor.o)).filter { newOf[$0] == nil }
            let b = (last.n + 1..<max(last.n + 1, anchor.n)).filter { oldOf[$0] == nil }
            last = anchor
            guard !a.isEmpty, !b.isEmpty else { continue }
            if !bySimilarity {
                for (i, j) in Alignment.pairs(a.map { old.functions[$0].normalized }, b.map { new.functions[$0].normalized }) {
                    match(a[i], b[j], .order)
                    found = true
                }
            } else if a.count * b.count <= Self.gapCellsMax {
                for (i, j) in bestAlignment(a, b) {
                    match(a[i], b[j], .similarity)
                    found = true
                }
            }
        }
        return found
    }

    /// Needleman-Wunsch over similarity: order is kept, each function is used once, weak pairs are left out.
    private mutating func bestAlignment(_ a: [Int], _ b: [Int]) -> [(Int, Int)] {
        let threshold = a.count == 1 && b.count == 1 ? 0.35 : Self.similarEnough
        let width = b.count + 1
        var score = [Double](repeating: 0, count: (a.count + 1) * width), pair = [Double](repeating: 0, count: a.count * b.count)
        for i in stride(from: a.count - 1, through: 0, by: -1) {
            for j in stride(from: b.count - 1, through: 0, by: -1) {
                let s = similarity(a[i], b[j])
                pair[i * b.count + j] = s
                let take = s >= threshold ? s + score[(i + 1) * width + j + 1] : 0
                score[i * width + j] = max(take, score[(i + 1) * width + j], score[i * width + j + 1])
            }
        }
        var result: [(Int, Int)] = [], i = 0, j = 0
        while i < a.count, j < b.count {
            let s = pair[i * b.count + j]
            if s >= threshold, score[i * width + j] == s + score[(i + 1) * width + j + 1] {
                result.append((i, j))
                i += 1
                j += 1
            } else if score[(i + 1) * width + j] >= score[i * width + j + 1] {
                i += 1
            } else {
                j += 1
            }
        }
        return result
    }
}
