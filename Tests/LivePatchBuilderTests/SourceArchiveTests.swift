// The private view of apt: what it takes over from the host's configuration, and what it leaves alone.

import Testing

@testable import LivePatchBuilder

@Suite struct SourceArchiveTests {
    @Test("one-line entries become source entries with their options and keys; comments and other lines are left out")
    func lines() {
        let text = """
            # deb http://commented.example/debian stable main
            deb [arch=amd64 signed-by=/usr/share/keyrings/a.gpg] http://a.example/debian bookworm main contrib # why
            deb-src http://a.example/debian bookworm main
            deb http://a.example/debian bookworm main

            deb cdrom
            """
        #expect(
            AptEntries.sources(ofList: text) == """
                deb-src [arch=amd64 signed-by=/usr/share/keyrings/a.gpg] http://a.example/debian bookworm main contrib
                deb-src http://a.example/debian bookworm main

                """)
    }

    @Test("stanzas become source entries; what is switched off stays off")
    func stanzas() {
        let text = """
            Types: deb
            # a mirror
            URIs: http://a.example/debian
            Suites: bookworm bookworm-updates
            Components: main
            Signed-By:
             -----BEGIN PGP PUBLIC KEY BLOCK-----
             .
             abc
             -----END PGP PUBLIC KEY BLOCK-----

            Enabled: no
            Types: deb
            URIs: http://b.example/debian
            Suites: bookworm
            Components: main

            X-Comment: nothing
            """
        let result = AptEntries.sources(ofStanzas: text)
        #expect(
            result.hasPrefix(
                "Types: deb-src\nURIs: http://a.example/debian\nSuites: bookworm bookworm-updates\nComponents: main\nSigned-By:\n -----BEGIN"
            ))
        #expect(!result.contains("b.example") && !result.contains("X-Comment"))
    }

    @Test("the view knows how archives are reached, and none of the host's hooks or folders")
    func configuration() {
        let host = """
            APT::Architecture "amd64";
            APT::Update::Post-Invoke:: "rm -f /var/cache/apt/archives/*.deb";
            Acquire::http::Proxy "http://proxy.example:3128";
            Acquire::IndexTargets::deb::DEP-11::MetaKey "x";
            DPkg::Post-Invoke:: "touch /x";
            Dir::State::lists "lists/";
            Dir::Etc::trustedparts "trusted.gpg.d";
            """
        let view = AptEntries.configuration(host: host, folder: "/c")
        #expect(view.contains("Acquire::http::Proxy \"http://proxy.example:3128\";") && view.contains("Dir::Etc::trustedparts"))
        #expect(!view.contains("Invoke") && !view.contains("DEP-11"))
        #expect(view.contains("Dir::State::lists \"/c/lists\";") && view.contains("Dir::Etc::parts \"/dev/null\";"))
    }

    @Test("names that are options or paths are no names")
    func names() {
        for bad in ["", "-o", "a/b", "a b", "a;b", "é"] { #expect(!SourceArchive.isName(bad)) }
        for bad in ["", "-1", "1/2", "1 2", "1$2"] { #expect(!SourceArchive.isVersion(bad)) }
        #expect(SourceArchive.isName("libpng1.6") && SourceArchive.isVersion("1:2.39.5-0+deb12u2~x"))
    }
}
