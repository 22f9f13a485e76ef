// Which patches of a Debian source package came after an older version, as its changelog and its series tell: what has to be
// taken off again to have that version back, when the archive no longer holds it. Pure text; what is doubtful is a refusal.

import Advisories
import ELF

enum PatchSeries {
    static let bytesMax = 16 << 20

    /// One patch of the series: its name as the series has it, and what its file says before the first change.
    struct Patch: Sendable {
        var name: String
        var header: String
    }

    /// Names from `debian/patches/series`, in order, without comments and options.
    static func names(_ series: String) -> [String] {
        series.split(separator: "\n").compactMap { line in
            let words = line.split(separator: "#", maxSplits: 1, omittingEmptySubsequences: false)[0].split(whereSeparator: \.isWhitespace)
            return words.first.map(String.init)
        }
    }

    /// The patches to take off, last first. Failure: `source-not-reconstructed`.
    static func gained(_ patches: [Patch], changelog: String, old: DebianVersion, new: DebianVersion) throws(Failure) -> [String] {
        func no(_ why: String) -> Failure {
            Failure(
                "source-not-reconstructed", why, at: old.description, remedy: "Give the old sources with --old-source and --new-source.")
        }
        guard old.epoch == new.epoch, old.upstream == new.upstream else { throw no("the upstream version changed since.") }
        guard let (after, before) = split(changelog, at: old) else { throw no("the new changelog does not reach back to it.") }
        for bullet in bullets(after) {
            let text = bullet.lowercased()
            func says(_ words: [String]) -> String? { words.first { text.contains($0) } }
            if text.contains("patch") || text.contains(".diff") || text.contains("d/p/") || text.contains("series"),
                let word = says([
                    "drop", "remov", "refresh", "rediff", "rebas", "replac", "renam", "rework", "fixup", "amend", "updat", "disabl",
                    "revert",
                ])
            {
                throw no("the changelog since then speaks of patches that may have changed (\"\(word)…\").")
            }
            if let word = says([
                "/rules", "/control", "build-dep", "configure", "compil", "hardening", "flags", "toolchain", "debhelper", "enable",
                "disable", "upstream version",
                "upstream release", "new upstream",
            ]) {
                throw no("the changelog since then speaks of how the package is built (\"\(word)\").")
            }
        }
        func isNamed(_ p: Patch, in text: String) -> Bool {
            let base = (p.name.split(separator: "/").last ?? "").split(separator: ".").first.map(String.init) ?? p.name
            if base.count > 8, text.contains(base) { return true }
            let ids = Set(CVE.named(in: Array(p.name.utf8)) + CVE.named(in: Array(p.header.utf8)))
            return !ids.isEmpty && ids.isSubset(of: CVE.named(in: Array(text.utf8)))
        }
        guard let first = patches.firstIndex(where: { isNamed($0, in: after) && !isNamed($0, in: before) }) else {
            throw no("the changelog since then names none of the package's patches.")
        }
        // From the end down to a patch that the old changelog names: whatever is not certainly old is taken off too.
        var at = patches.count
        while at > 0, at > first || !isNamed(patches[at - 1], in: before) { at -= 1 }
        return patches[at...].map(\.name).reversed()
    }

    /// The entries newer than `old`, and those from it on.
    private static func split(_ changelog: String, at old: DebianVersion) -> (after: String, before: String)? {
        var after = "", before = "", isOld = false
        for line in changelog.split(separator: "\n", omittingEmptySubsequences: false) {
            if let c = line.first, c != " ", c != "\t", let open = line.firstIndex(of: "("), let close = line[open...].firstIndex(of: ")"),
                let version = DebianVersion(String(line[line.index(after: open)..<close]))
            {
                isOld = version <= old
                if isOld, before.isEmpty, version != old { return nil }
            }
            if isOld { before += line + "\n" } else { after += line + "\n" }
        }
        return before.isEmpty ? nil : (after, before)
    }

    /// The items of an entry, each with its continued lines.
    private static func bullets(_ text: String) -> [String] {
        var result: [String] = []
        for line in text.split(separator: "\n") {
            let body = line.drop { $0 == " " || $0 == "\t" }
            if ["*", "-", "+", "o"].contains(body.split(separator: " ").first ?? "") || result.isEmpty {
                result.append(String(body))
            } else {
                result[result.count - 1] += " " + body
            }
        }
        return result
    }
}
