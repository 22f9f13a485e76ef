// Every code that the program can say is documented, and no documented code is gone: an operator searches for them.

import Foundation
import Testing

/// Words in the sources that are written as codes are and are none. A new one that is no code belongs here.
private let otherWords: Set<String> = [
    // what a process or an object is, in JSON
    "already-patched", "could-not-tell", "no-package", "not-patched", "nothing-to-do", "patched-in-part",
    "no-unwinder", "not-registered",
    // keywords of rules, headers of HTTP, classes of rules
    "accept-encoding", "accept-language", "app-layer-event", "app-layer-protocol", "content-length", "content-type",
    "content-transfer-encoding", "quoted-printable", "transfer-encoding", "end-of-buffer",
    "set-cookie", "tcp-pkt", "tcp-stream", "user-agent", "x-www-form-urlencoded",
    // options
    "build-id", "debug-dir", "dry-run", "install-build-deps", "new-source", "no-sources", "old-source",
    // in a manifest
    "per-call",
    // tools of the distribution, and what they say
    "apt-cache", "apt-config", "apt-get", "config-files", "deb-src", "dpkg-deb", "dpkg-query", "dpkg-source", "not-installed",
    "build-arch", "build-dep", "dpkg-buildpackage", "dpkg-checkbuilddeps",
]

@Suite struct CodesTests {
    /// All words of the sources in quotation marks that may be codes: several words joined by hyphens, however they come to
    /// be said, and single words where they are said at once.
    private static func candidates() throws -> Set<String> {
        let joined = try Regex(#""([a-z]+(?:-[a-z]+)+)""#)
        let single = try Regex(#"(?:Failure|failure|Finding|refuse|couldNotTell)\(\s*(?:nil, |header, )?"([a-z]+)""#)
        var result: Set<String> = []
        for file in try SourceFile.all(under: "Sources") where file.isSwift {
            let text = file.code.joined(separator: "\n")
            for match in text.matches(of: joined) + text.matches(of: single) {
                if let code = match[1].substring { result.insert(String(code)) }
            }
        }
        return result
    }

    /// What stands in the first cells of the tables.
    private static func documented() throws -> Set<String> {
        var result: Set<String> = []
        for row in try TextTable.rows(in: "docs/codes.md") { result.formUnion(TextTable.quoted(row.first ?? "")) }
        return result
    }

    @Test func everyCodeIsDocumented() throws {
        let missing = try Self.candidates().subtracting(Self.documented()).subtracting(otherWords).sorted()
        #expect(missing.isEmpty, "not in docs/codes.md; or no codes, then name them in CodesTests.swift: \(missing)")
    }

    @Test func noDocumentedCodeIsGone() throws {
        let gone = try Self.documented().subtracting(Self.candidates()).sorted()
        #expect(gone.isEmpty, "only in docs/codes.md: \(gone)")
    }

    @Test func wordsThatAreNoCodesAreStillInUse() throws {
        let gone = try otherWords.subtracting(Self.candidates()).sorted()
        #expect(gone.isEmpty, "shorten the list in CodesTests.swift: \(gone)")
    }

    @Test func everyFindingSaysItsVerdictAndEveryCodeWhatItMeansAndWhatToDo() throws {
        for row in try TextTable.rows(in: "docs/codes.md") {
            for cell in row { #expect(!cell.isEmpty, "an empty cell beside \(row.first ?? "")") }
            if row.count == 4 { #expect(row[1].hasPrefix("refuse") || row[1].hasPrefix("review"), "\(row)") }
        }
    }
}
