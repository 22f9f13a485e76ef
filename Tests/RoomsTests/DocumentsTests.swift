// Documents that can rot are tests: what they name is there, and what they should list is complete.

import Foundation
import Testing

@Suite struct DocumentsTests {
    private static let documents = ["README.md", "CHANGELOG.md"] + pages
    private static let pages = ["ARCHITECTURE", "authors", "cli", "codes", "evidence", "patch-format", "rules", "safety"].map {
        "docs/\($0).md"
    }

    private static func all() throws -> [SourceFile] {
        try ["Sources", "Tests", "Fixtures", "scripts", "docs", "Benchmarks", "Fuzz"].flatMap { try SourceFile.all(under: $0) }
    }

    @Test func everyPageIsTested() throws {
        let there = try FileManager.default.contentsOfDirectory(atPath: packageRoot + "/docs").map { "docs/" + $0 }
        #expect(Set(there) == Set(Self.pages), "docs/ holds other pages than DocumentsTests.swift lists")
    }

    @Test("every link leads to a file", arguments: documents)
    func links(_ document: String) throws {
        let folder = (document as NSString).deletingLastPathComponent
        for match in try TextTable.text(document).matches(of: /\]\(([^)#]+)[^)]*\)/) where !match.1.contains("://") {
            let path = packageRoot + "/" + folder + "/" + match.1
            #expect(FileManager.default.fileExists(atPath: path), "\(document) links to \(match.1)")
        }
    }

    @Test("every file that is named is there", arguments: documents)
    func files(_ document: String) throws {
        let paths = try Self.all().map { "/" + $0.path }
        for word in TextTable.quoted(try TextTable.text(document)) {
            guard word.contains(/^[A-Za-z0-9_+\/.-]+\.(swift|c|h|md)$/) || word.hasPrefix("scripts/") else { continue }
            #expect(paths.contains { $0.hasSuffix("/" + word) }, "\(document) names \(word)")
        }
    }

    /// `SuiteTests` or `SuiteTests.test`.
    @Test func everyTestThatIsNamedIsThere() throws {
        let tests = try SourceFile.all(under: "Tests").filter(\.isSwift)
        let folders = Set(tests.map { String($0.path.split(separator: "/")[1]) })
        for document in Self.documents {
            for word in TextTable.quoted(try TextTable.text(document)) {
                guard let match = word.wholeMatch(of: /([A-Z][A-Za-z]*Tests)(?:\.([A-Za-z]+))?/) else { continue }
                let suites = tests.filter { $0.code.contains { $0.contains("struct \(match.1)") || $0.contains("class \(match.1)") } }
                #expect(!suites.isEmpty || folders.contains(String(match.1)), "\(document) names \(word)")
                guard let name = match.2 else { continue }
                #expect(suites.contains { file in file.code.contains { $0.contains("func \(name)(") } }, "\(document) names \(word)")
            }
        }
    }

    @Test func whatIsPromisedIsProvedByTests() throws {
        let sections = try TextTable.text("docs/safety.md").components(separatedBy: "\n## ")
        let rows = sections.first { $0.hasPrefix("Promised") }?.split(separator: "\n").filter { $0.hasPrefix("| ") }.dropFirst() ?? []
        #expect(rows.count >= 10)
        for row in rows {
            let proof = String(row.split(separator: "|").last { !$0.allSatisfy(\.isWhitespace) } ?? "")
            #expect(TextTable.quoted(proof).contains { $0.contains("Tests") }, "no test is named for: \(row)")
        }
    }

    @Test func everyRoomIsInTheArchitecture() throws {
        let page = try TextTable.text("docs/ARCHITECTURE.md")
        for room in rooms { #expect(page.contains(room.name), "docs/ARCHITECTURE.md does not name \(room.name)") }
    }

    @Test func everyMakeCommandIsThere() throws {
        let makefile = try TextTable.text("Makefile")
        let targets = Set(makefile.matches(of: /\n([a-z][a-z -]*):/).flatMap { $0.1.split(separator: " ").map(String.init) })
        for document in Self.documents {
            for match in try TextTable.text(document).matches(of: /(?:`|    )make ([a-z-]+)/) {
                #expect(targets.contains(String(match.1)), "\(document) says make \(match.1)")
            }
        }
        for target in targets.subtracting(["help", "setup", "clean"]) {
            #expect(makefile.contains("make \(target) "), "make alone does not say what make \(target) does")
        }
    }

    @Test func everySchemaAndVariableIsDocumented() throws {
        let page = try TextTable.text("docs/cli.md") + TextTable.text("docs/patch-format.md") + TextTable.text("docs/rules.md")
        for file in try SourceFile.all(under: "Sources") where file.isSwift {
            let code = file.code.joined(separator: "\n")
            for match in code.matches(of: /"(fother\.[a-z]+\/[0-9]+)"/) {
                #expect(page.contains("`\(match.1)`"), "\(file.path) prints \(match.1), which docs/cli.md lacks")
            }
            for match in code.matches(of: /environment\["([A-Z_]+)"\]/) {
                #expect(page.contains("| `\(match.1)` |"), "\(file.path) reads \(match.1), which docs/cli.md lacks")
            }
        }
    }
}
