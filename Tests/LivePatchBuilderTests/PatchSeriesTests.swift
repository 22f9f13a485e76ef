// Which patches came since an older version: what is certain is taken off, what is doubtful is refused.

import Advisories
import ELF
import Testing

@testable import LivePatchBuilder

@Suite struct PatchSeriesTests {
    private static let old = version("1.0-2+deb12u1"), new = version("1.0-2+deb12u2")
    private static func version(_ text: String) -> DebianVersion {
        guard let version = DebianVersion(text) else { fatalError("\(text) is no version") }
        return version
    }
    private static let before = """
        shop (1.0-2+deb12u1) bookworm-security; urgency=high

          * CVE-2024-1111: bounds in the till

         -- A <a@example.org>  Mon, 01 Jan 2024 00:00:00 +0000

        shop (1.0-2) unstable; urgency=low

          * Add fix-spelling-of-names.patch

        """

    private func gained(_ entry: String, _ patches: [(String, String)], old: DebianVersion = old, new: DebianVersion = new) throws
        -> [String]
    {
        let changelog =
            "shop (\(new)) bookworm; urgency=medium\n\n" + entry + "\n\n -- B <b@example.org>  Tue, 02 Jan 2024\n\n" + Self.before
        return try PatchSeries.gained(patches.map { PatchSeries.Patch(name: $0.0, header: $0.1) }, changelog: changelog, old: old, new: new)
    }
    private func refusal(_ entry: String, _ patches: [(String, String)], old: DebianVersion = old, new: DebianVersion = new) -> String? {
        do {
            _ = try gained(entry, patches, old: old, new: new)
            return nil
        } catch { return (error as? Failure)?.code }
    }
    private let series = [("fix-spelling-of-names.patch", ""), ("CVE-2024-1111.patch", ""), ("CVE-2025-2222.patch", "")]

    @Test("what the new changelog names comes off, last first; unnamed ones behind an old one come off too")
    func named() throws {
        #expect(try gained("  * CVE-2025-2222: more bounds", series) == ["CVE-2025-2222.patch"])
        #expect(
            try gained("  * CVE-2025-2222: more bounds", series + [("0002-follow-up.patch", "Subject: x")]) == [
                "0002-follow-up.patch", "CVE-2025-2222.patch",
            ])
        let hidden = [series[0], series[1], ("quiet-change.patch", ""), series[2]]
        #expect(try gained("  * CVE-2025-2222: more bounds", hidden) == ["CVE-2025-2222.patch", "quiet-change.patch"])
        #expect(try gained("  * CVE-2025-2222", [series[0], series[1], ("till.patch", "Bug: CVE-2025-2222\n")]) == ["till.patch"])
        #expect(PatchSeries.names("# off\na.patch -p1\n\n  b.patch # why\n") == ["a.patch", "b.patch"])
    }

    @Test(
        "doubt is a refusal",
        arguments: [
            "  * Drop CVE-2024-1111.patch, CVE-2025-2222", "  * Refresh patches\n  * CVE-2025-2222",
            "  * CVE-2025-2222\n  * d/p/series: reverted one",
            "  * CVE-2025-2222\n  * debian/rules: more", "  * CVE-2025-2222, now with hardening",
            "  * CVE-2025-2222\n  * Enable the other\n    codec",
            "  * Nothing that names anything",
        ])
    func doubt(_ entry: String) { #expect(refusal(entry, series) == "source-not-reconstructed") }

    @Test("another upstream version, or a changelog that does not reach back")
    func versions() {
        #expect(refusal("  * CVE-2025-2222", series, new: DebianVersion("1.1-1")!) == "source-not-reconstructed")
        #expect(refusal("  * CVE-2025-2222", series, old: DebianVersion("1.0-2+deb12u0")!) == "source-not-reconstructed")
    }
}
