// The builder sees stripped files; here the symbol tables that were stripped off say whether it matched and mapped rightly.
// FOTHER_SEEDS=first:count runs other random libraries. FOTHER_TRUTH=folder checks builds of real programs: each subfolder
// has a file `artifacts` with lines `vuln PATH …` and `fixed PATH …`, unstripped files under vuln/ and fixed/.

import ELF
import Foundation
import LivePatch
import ProcessControl
import Testing

@testable import LivePatchBuilder

/// What a symbol table says about addresses.
struct Truth {
    private var functions: [LinkAddress: Set<String>] = [:]
    private var objects: [(start: LinkAddress, size: Int, key: String)] = []

    init(_ bytes: [UInt8]) throws {
        let file = try ELFFile(bytes, name: "unstripped")
        var source = ""
        for s in file.symbols {
            if s.kind == .file { source = s.name }
            guard s.isDefined, s.section < Symbol.absolute else { continue }
            let key = s.isGlobal ? s.name : source + ":" + s.name
            if s.isFunction { functions[s.value, default: []].insert(key) }
            if s.kind == .object, s.size > 0 { objects.append((s.value, s.size, key)) }
        }
        objects.sort { $0.start < $1.start }
    }

    /// Names of the function at an address; a clone or part is its function.
    func names(at a: LinkAddress) -> Set<String> { Set((functions[a] ?? []).map(Self.base)) }

    private static func base(_ key: String) -> String {
        let colon = key.firstIndex(of: ":") ?? key.startIndex
        let dot = key[colon...].firstIndex(of: ".") ?? key.endIndex
        // `file.c:name.part.0`: the dot in the file's name comes before the colon.
        return String(key[..<dot])
    }

    /// What an address may be: places inside objects, or the ends of objects.
    func places(at a: LinkAddress) -> Set<String> {
        Set(
            objects.compactMap {
                a >= $0.start && a - $0.start <= $0.size ? "\($0.key)+\(a - $0.start)\(a - $0.start == $0.size ? " end" : "")" : nil
            })
    }
}

struct Score: CustomStringConvertible {
    var ok = 0, bad: [String] = [], missed = 0, untold = 0
    var description: String { "\(ok) ok, \(bad.count) bad, \(missed) missed, \(untold) untold" }
}

@Suite struct GroundTruthTests {
    private static let environment = ProcessInfo.processInfo.environment

    /// Functions matched on trusted grounds, functions matched at all, and data that votes or the resolver mapped.
    private func check(_ old: (full: [UInt8], stripped: [UInt8]), _ new: (full: [UInt8], stripped: [UInt8])) throws -> (
        trusted: Score, all: Score, data: Score, resolved: Score
    ) {
        let before = try Truth(old.full), after = try Truth(new.full)
        let c = Comparison(
            try CodeImage(try ELFFile(old.stripped, name: "old")), try CodeImage(try ELFFile(new.stripped, name: "new")))
        var trusted = Score(), all = Score(), data = Score(), resolved = Score()
        var oldNames: Set<String> = []
        for f in c.old.functions { oldNames.formUnion(before.names(at: f.start)) }
        for g in c.new.functions {
            let names = after.names(at: g.start)
            guard !names.isEmpty else {
                all.untold += 1
                continue
            }
            guard let o = c.match.oldOf[g.index], let basis = c.match.basis[g.index] else {
                if !names.isDisjoint(with: oldNames) { all.missed += 1 }
                continue
            }
            let there = before.names(at: c.old.functions[o].start)
            let isRight = !names.isDisjoint(with: there)
            let said = "\(names.sorted()) taken for \(there.sorted()) by \(basis)"
            if isRight { all.ok += 1 } else { all.bad.append(said) }
            if basis <= .references { if isRight { trusted.ok += 1 } else { trusted.bad.append(said) } }
        }
        func judge(_ x: LinkAddress, _ y: LinkAddress, _ why: String, _ score: inout Score) {
            let here = after.places(at: y), there = before.places(at: x)
            if here.isEmpty || there.isEmpty {
                score.untold += 1
            } else if here.isDisjoint(with: there) {
                score.bad.append("\(y) \(here.sorted()) taken for \(x) \(there.sorted()) by \(why)")
            } else {
                score.ok += 1
            }
        }
        for (y, _) in c.map.votes.sorted(by: { $0.key < $1.key }) { if let x = c.provedOld(y) { judge(x, y, "votes", &data) } }
        let moved = MovedCode(c)
        var resolver = Resolver(c, moved, oldTaken: c.old.addressTaken(), declarationsAgree: true)
        for n in moved.functions {
            for r in resolver.resolve(n) {
                // Equal constants may stand for each other.
                guard case .old(let x, _) = r.destination, [.votes, .symbol, .relocation, .place].contains(r.evidence) else { continue }
                guard c.new.file.section(at: r.reference.target)?.isWritable ?? false else { continue }
                judge(x + r.offset, r.reference.target, "\(r.evidence)", &resolved)
            }
        }
        return (trusted, all, data, resolved)
    }

    static let seeds: [UInt64] = {
        let words = (environment["FOTHER_SEEDS"] ?? "1:24").split(separator: ":").compactMap { UInt64($0) }
        return words.count == 2 ? Array(words[0]..<words[0] + words[1]) : []
    }()

    /// Larger random libraries, files linked in random order. Functions that change over to other variables are left out:
    /// what they say about data is true of what they now use.
    @Test(arguments: seeds) func matchesAreTrue(_ seed: UInt64) throws {
        var random = SeededRandom(seed &+ 0x1000)
        var old = RandomLibrary(&random)
        for _ in 0..<30 { old.addFunction(&random) }
        var new = old
        var changes: [String] = []
        while changes.count < 4 {
            var next = new
            let change = next.mutate(&random)
            guard !change.contains(" instead of ") else { continue }
            new = next
            changes.append(change)
        }
        let alignment = random.pick([1, 16, 32, 64])
        let recipe = Recipe(flags: [random.pick(["-O1", "-O2", "-O2", "-O3", "-Os"]), "-fwrapv", "-falign-functions=\(alignment)"])
        let order = (0..<old.files).shuffled(using: &random)
        let pair = try Pair(old: order.map { old.sources()[$0] }, new: order.map { new.sources()[$0] }, recipe)
        let (trusted, all, data, resolved) = try check((pair.old.full, pair.old.stripped), (pair.new.full, pair.new.stripped))
        let said = "seed \(seed) \(recipe.flags): \(changes.joined(separator: "; "))"
        #expect(trusted.bad.isEmpty, "\(said)")
        #expect(data.bad.isEmpty, "\(said)")
        #expect(resolved.bad.isEmpty, "\(said)")
        #expect(all.ok > 20, "\(said)")
        if Self.environment["FOTHER_SEEDS"] != nil {
            print("\(said)\n  trusted \(trusted); all \(all); data \(data); resolved \(resolved)")
        }
    }

    /// Real builds, where a folder with them is named.
    @Test(.enabled(if: environment["FOTHER_TRUTH"] != nil, "FOTHER_TRUTH names no folder with unstripped builds"))
    func realBuilds() throws {
        let folder = try #require(Self.environment["FOTHER_TRUTH"])
        let workshop = try Workshop()
        func load(_ path: String) throws -> (full: [UInt8], stripped: [UInt8]) {
            let out = workshop.path + "/stripped"
            _ = try ChildProcess.runChecked(
                ["strip", "--remove-section=.comment", "--remove-section=.note", "--strip-unneeded", path, "-o", out])
            return (try Array(Data(contentsOf: URL(fileURLWithPath: path))), try workshop.read("stripped"))
        }
        for name in try FileManager.default.contentsOfDirectory(atPath: folder).sorted() {
            guard let list = try? String(contentsOfFile: "\(folder)/\(name)/artifacts", encoding: .utf8) else { continue }
            let lines = list.split(separator: "\n").map { $0.split(separator: " ").map(String.init) }.filter { $0.count > 1 }
            for (a, b) in zip(lines.filter { $0[0] == "vuln" }, lines.filter { $0[0] == "fixed" }) {
                let old = try load("\(folder)/\(name)/vuln/\(a[1])"), new = try load("\(folder)/\(name)/fixed/\(b[1])")
                let (trusted, all, data, resolved) = try check(old, new)
                print("\(name) \(a[1]): trusted \(trusted); all \(all); data \(data); resolved \(resolved)")
                for bad in trusted.bad + data.bad + resolved.bad { print("  \(bad)") }
                // A renamed function and a field that moved count as bad here: only a pass must have none.
                let answer = try build(old: old.stripped, new: new.stripped, BuildContext(object: name))
                guard answer.manifest.findings.allSatisfy({ $0.code == "layout-unproved" }) else { continue }
                #expect(trusted.bad.isEmpty && data.bad.isEmpty && resolved.bad.isEmpty, "\(name) \(a[1])")
            }
        }
    }
}
