// Random fixes to random libraries. Whatever the builder passes must make the old process answer like the fixed build, live
// state included. FOTHER_SEEDS=first:count runs other seeds than the usual ones and prints the answers; FOTHER_KEEP=folder
// keeps the libraries and their sources.

import Foundation
import LivePatch
import ProcessControl
import Testing

@Suite struct RandomPairTests {
    private static let environment = ProcessInfo.processInfo.environment
    static let seeds: [UInt64] = {
        let words = (environment["FOTHER_SEEDS"] ?? "1:16").split(separator: ":").compactMap { UInt64($0) }
        return words.count == 2 ? Array(words[0]..<words[0] + words[1]) : []
    }()

    private static let flags: [[String]] = [
        ["-O2"], ["-O2"], ["-O2"], ["-O1"], ["-O3"], ["-Os"], ["-O2", "-fno-plt"], ["-O2", "-fcf-protection=full"],
        ["-O2", "-Wl,-Bsymbolic"],
        ["-O2", "-fno-tree-vectorize"], ["-O2", "-fno-inline"], ["-O1", "-fno-jump-tables"],
    ]

    @Test(arguments: seeds) func whatPassesIsSound(_ seed: UInt64) throws {
        var random = SeededRandom(seed)
        let old = RandomLibrary(&random)
        var new = old
        var changes: [String] = []
        for _ in 0..<1 + random.below(4) { changes.append(new.mutate(&random)) }
        let recipe = Recipe(flags: random.pick(Self.flags) + ["-fwrapv", "-fno-strict-aliasing"])
        let pair = try Pair(old: old.sources(), new: new.sources(), recipe)
        if let keep = Self.environment["FOTHER_KEEP"] {
            try FileManager.default.copyItem(atPath: pair.workshop.path, toPath: "\(keep)/seed-\(seed)")
        }
        let both = new.functions.filter(\.isExported).map(\.name).filter { name in old.functions.contains { $0.name == name } }
        let counters = (0..<old.files).flatMap { ["noted_in_\($0)", "rarely_in_\($0)"] }
        let quiet = old.unchangedExports(new)
        var before: [Call] = [], after: [Call] = []
        if !quiet.isEmpty { for _ in 0..<20 { before.append(Call(random.pick(quiet), random.below(300), random.below(64))) } }
        for _ in 0..<60 { after.append(Call(random.pick(both + counters), random.below(300), random.below(64))) }
        let j = try expectSound(
            pair, before: before, after: after, comment: "seed \(seed) \(recipe.flags): \(changes.joined(separator: "; "))")
        if Self.environment["FOTHER_SEEDS"] != nil { print("seed \(seed) \(j.answer) \(j.codes.sorted()) \(changes)") }
    }
}
