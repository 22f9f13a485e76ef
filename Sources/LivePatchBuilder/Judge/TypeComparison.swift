// Compares what the debug information of both builds says about types and lasting variables: the layout that compilers gave
// them, holes included.

import ELF
import LivePatch

struct TypeComparison {
    /// More of them are counted, not listed.
    static let findingsMax = 50

    /// The evidence of debug information for a patch of these functions, by their ranges in each build. `old`, `new`: what holds
    /// the information, the files themselves or their separate debug files.
    static func evidence(
        _ old: ELFFile, _ new: ELFFile, patched: (old: [Range<LinkAddress>], new: [Range<LinkAddress>])
    ) -> LayoutEvidence {
        do {
            let a = try DebugTypes(old), b = try DebugTypes(new)
            if a.isEmpty || b.isEmpty {
                return LayoutEvidence(absent: "dwarf", because: "\(a.isEmpty ? "the old" : "the new") build has no debug information.")
            }
            let differences = differences(a, b)
            if !differences.isEmpty { return LayoutEvidence("dwarf", .differs, findings: differences) }
            var result = LayoutEvidence("dwarf", .agrees)
            // Code without debug information may use types of its own.
            let bare = patched.old.filter { !a.covers($0) }.count + patched.new.filter { !b.covers($0) }.count
            if a.isIncomplete || b.isIncomplete {
                result.answer = .unknown
                result.reason = "the debug information keeps types in another file, or was not understood in full."
            } else if bare > 0 {
                result.answer = .unknown
                result.reason = "\(bare) of the patch's functions have no debug information."
            }
            return result
        } catch {
            return LayoutEvidence(absent: "dwarf", because: error)
        }
    }

    /// Types and variables that both builds have, with other layouts; and types that may have taken another's place.
    private static func differences(_ old: DebugTypes, _ new: DebugTypes) -> [Finding] {
        var result: [Finding] = []
        for (key, after) in new.layouts.sorted(by: { $0.key < $1.key }) {
            guard let before = old.layouts[key] else { continue }
            let known = Set(before.values)
            // Source file by source file: several may have types of one name.
            guard
                let (file, layout) = after.sorted(by: { $0.key < $1.key }).first(where: { file, layout in
                    before[file].map { $0 != layout } ?? !known.contains(layout)
                })
            else { continue }
            result.append(changed(key, before[file] ?? known.sorted().first ?? "", layout))
        }
        result += replaced(old, new)
        guard result.count > findingsMax else { return result }
        let left = result.count - findingsMax
        return result.prefix(findingsMax) + [
            Finding("type-layout-changed", "\(left) more", "\(left) more types differ.", remedy: LayoutSignals.remedy, verdict: .refuse)
        ]
    }

    private static func changed(_ key: String, _ before: String, _ after: String) -> Finding {
        let x = before.components(";"), y = after.components(";")
        let from = x.first { !y.contains($0) } ?? "", to = y.first { !x.contains($0) } ?? ""
        let what = from.isEmpty ? "\(to) is new" : to.isEmpty ? "\(from) is gone" : "\(from) became \(to)"
        if key.hasPrefix("enum") {
            return Finding(
                "type-enum-changed", key, "\(what).", remedy: "Decide whether stored values or array sizes mean something else now.",
                verdict: .review)
        }
        return Finding("type-layout-changed", key, "\(what).", remedy: "Live objects keep the old layout: restart.", verdict: .refuse)
    }

    /// A type that is gone while another came in the same source file may be the same one under another name.
    private static func replaced(_ old: DebugTypes, _ new: DebugTypes) -> [Finding] {
        func only(_ a: DebugTypes, notIn b: DebugTypes) -> [String: [String]] {
            var result: [String: [String]] = [:]
            for (key, files) in a.layouts where b.layouts[key] == nil && !key.hasPrefix("variable ") && !key.hasPrefix("enumerator ") {
                for file in files.keys { result[file, default: []].append(key) }
            }
            return result
        }
        let gone = only(old, notIn: new), come = only(new, notIn: old)
        return gone.keys.filter { come[$0] != nil }.sorted().compactMap { file in
            guard let a = gone[file]?.min(), let b = come[file]?.min() else { return nil }
            return Finding(
                "type-replaced", a, "it is gone from \(file.isEmpty ? "the build" : file), and \(b) is new there.",
                remedy: "Decide whether objects of the one are used as objects of the other.", verdict: .review)
        }
    }
}

extension String {
    fileprivate func components(_ separator: Character) -> [String] {
        split(separator: separator).map { String($0.drop { $0 == " " }) }
    }
}
