// Which CVEs a changelog names between two versions, and whether it could tell.

import Advisories
import Testing

@Suite struct DebianChangelogTests {
    static let text = """
        libpng1.6 (1.6.39-2+deb12u3) bookworm-security; urgency=medium

          * Backport fix for CVE-2026-25646 - Heap buffer overflow (Closes: #1127566)
          * cve-2026-25647, also (CVE-2026-0001).

         -- A Person <a@example.org>  Mon, 16 Feb 2026 18:58:09 +0100

        libpng1.6 (1.6.39-2+deb12u2) bookworm; urgency=medium

          * CVE-2026-22801 and CVE-2026-22801 again; CVE-2026-123456789012 is not one
          - (not a heading); CVE-20-1, CVE-2026-1, XCVE-2026-22695

         -- A Person <a@example.org>  Sat, 24 Jan 2026 14:15:14 +0100

        libpng1.6 (1.6.39-2) unstable; urgency=medium

          * CVE-2022-0001

         -- A Person <a@example.org>  Sun, 27 Nov 2022 20:59:26 +0100

        """

    func named(_ old: String, _ new: String) throws -> DebianChangelog.Named {
        DebianChangelog(Array(Self.text.utf8))
            .cves(after: try #require(DebianVersion(old)), upTo: try #require(DebianVersion(new)))
    }

    @Test func namesWhatLiesBetweenAndNothingElse() throws {
        let one = try named("1.6.39-2+deb12u2", "1.6.39-2+deb12u3")
        #expect(one.cves.map(\.description) == ["CVE-2026-0001", "CVE-2026-25646", "CVE-2026-25647"])
        #expect(one.reachesBothVersions)
        let two = try named("1.6.39-2", "1.6.39-2+deb12u2")
        #expect(two.cves.map(\.description) == ["CVE-2026-22695", "CVE-2026-22801"])
    }

    @Test func sameVersionNamesNothing() throws {
        #expect(try named("1.6.39-2", "1.6.39-2").cves.isEmpty)
    }

    @Test func aRebuildIsFoundUnderItsSourceVersion() throws {
        let rebuilt = try named("1.6.39-2+b1", "1.6.39-2+deb12u2")
        #expect(rebuilt.reachesBothVersions)
        #expect(rebuilt.cves.count == 2)
    }

    /// An empty list from a changelog that does not go back far enough would read as "fixes nothing".
    @Test func sayIfTheChangelogDoesNotReachBack() throws {
        #expect(try !named("1.6.38-1", "1.6.39-2+deb12u3").reachesBothVersions)
        #expect(try !named("1.6.39-2", "1.6.39-2+deb12u9").reachesBothVersions)
        #expect(DebianChangelog([]).entries.isEmpty)
    }

    @Test func identifiersAreReadStrictly() {
        #expect(CVE("CVE-2024-45490")?.description == "CVE-2024-45490")
        #expect(CVE("cve-2024-0001")?.description == "CVE-2024-0001")
        for text in [
            "", "CVE-", "CVE-2024-", "CVE-2024-123", "CVE-0024-12345", "CVE-2024-12345 ", "CVE-2024-1234567890",
        ] {
            #expect(CVE(text) == nil, "\(text)")
        }
    }
}
