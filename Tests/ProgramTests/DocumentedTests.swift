// What docs/cli.md says of the program, held against the program itself.

import Foundation
import ProcessControl
import Testing

@Suite struct DocumentedTests {
    private static let checkout = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent()
    static let verbs = ["ps", "build", "inspect", "apply", "revert", "symbols", "sign", "mitigate", "rules", "demo"]
    static let ruleVerbs = ["rules check", "rules list", "rules explain", "rules test"]

    private static func lines(_ page: String) throws -> [String] {
        try String(contentsOf: checkout.appendingPathComponent(page), encoding: .utf8).split(separator: "\n").map(String.init)
    }
    private static func quoted(_ text: some StringProtocol) -> [String] { String(text).matches(of: /`([^`]+)`/).map { String($0.1) } }
    private static func help(_ words: [String]) throws -> String {
        try ChildProcess.runChecked([Shop.program] + words + ["--help"]).outputText
    }
    /// The row of a table whose first cell names `key`: the words between backquotes behind it.
    private static func row(_ key: String, in page: String = "docs/cli.md") throws -> Set<String> {
        let rows = try lines(page).filter { $0.hasPrefix("| `") && quoted($0.split(separator: "|")[0]).contains(key) }
        let row = try #require(rows.first, "\(page) has no row for \(key)")
        return Set(quoted(row)).subtracting([key])
    }

    @Test func everyVerbIsDocumented() throws {
        let text = try Self.help([])
        let list = text.components(separatedBy: "SUBCOMMANDS:").last ?? ""
        #expect(Set(list.matches(of: #/\n  ([a-z]+) +[A-Z]/#).map { String($0.1) }) == Set(Self.verbs))
    }

    @Test("--help names exactly the options that docs/cli.md names", arguments: verbs + ruleVerbs)
    func options(_ verb: String) throws {
        let named = try Self.help(verb.split(separator: " ").map(String.init)).matches(of: #/\n  (?:(-[a-z]), )?(--[a-z-]+)/#).flatMap {
            [$0.1, $0.2].compactMap { $0.map(String.init) }
        }
        let row = try #require(try Self.lines("docs/cli.md").first { $0.hasPrefix("| `\(verb)`") || $0.hasPrefix("| `\(verb) ") })
        let cell = try #require(row.split(separator: "|").last { !$0.allSatisfy(\.isWhitespace) })
        let documented = Self.quoted(cell).flatMap { $0.components(separatedBy: ", ") }.filter { $0.hasPrefix("-") }
        #expect(Set(documented) == Set(named).subtracting(["-h", "--help", "--version"]))
    }

    @Test("every key that the program's JSON has is documented", .enabled(if: geteuid() == 0, "needs root"))
    func keys() throws {
        let shop = try Shop(), patch = shop.path("fix.fother")
        let built = try shop.json(shop.fother("build", shop.path("libold.so"), shop.path("libnew.so"), "-o", patch, "--json"))
        try expectDocumented(built, "fother.build/1")
        try expectDocumented(shop.json(shop.fother("inspect", patch, "--json")), "fother.inspect/1")
        let child = try ChildProcess([shop.path("main")], input: .pipe, output: .pipe)
        let pid = "\(child.id)"
        try child.write("x")
        #expect(try child.readLine() == "3")
        for words in [
            ["ps", "--pid", pid], ["apply", patch, "--pid", pid, "--dry-run"], ["apply", patch, "--pid", pid],
            ["symbols", pid, "-o", shop.path("symbols.elf")], ["revert", patch, "--pid", pid],
        ] {
            let answer = try shop.json(shop.fother(words + ["--json"]))
            let schema = try #require(answer["schema"] as? String)
            try expectDocumented(answer, schema)
        }
    }

    private func expectDocumented(_ answer: [String: Any], _ schema: String) throws {
        var keys: Set<String> = []
        collect(answer, &keys)
        let documented = try Self.row(schema).union(["schema", "finding", "because", "code", "sentence", "place", "remedy"])
        let missing = keys.subtracting(documented).sorted()
        #expect(missing.isEmpty, "\(schema) has keys that docs/cli.md does not name: \(missing)")
        if let manifest = ((answer["results"] as? [[String: Any]])?.first ?? answer)["manifest"] as? [String: Any] {
            for key in manifest.keys {
                let rows = try Self.lines("docs/patch-format.md").filter {
                    $0.hasPrefix("| `") && Self.quoted($0.split(separator: "|")[0]).contains(key)
                }
                #expect(!rows.isEmpty, "docs/patch-format.md does not name the manifest's \(key)")
            }
        }
    }

    /// Keys at any depth; a manifest is another page's, and the keys of a plan's sites are addresses.
    private func collect(_ value: Any, _ keys: inout Set<String>) {
        if let list = value as? [Any] { for item in list { collect(item, &keys) } }
        guard let object = value as? [String: Any] else { return }
        for (key, value) in object {
            keys.insert(key)
            if key != "manifest", key != "sites" { collect(value, &keys) }
        }
    }

    @Test func everyDocumentedKeyAndWordIsInTheSources() throws {
        var text = ""
        let folder = Self.checkout.appendingPathComponent("Sources")
        for room in ["fother", "LivePatchBuilder", "LivePatch"] {
            let files = FileManager.default.enumerator(at: folder.appendingPathComponent(room), includingPropertiesForKeys: nil)
            while let file = files?.nextObject() as? URL {
                if file.pathExtension == "swift" { text += try String(contentsOf: file, encoding: .utf8) }
            }
        }
        for line in try Self.lines("docs/cli.md")
        where line.hasPrefix("| `fother.") || line.hasPrefix("| `file`") || line.hasPrefix("| `state`") || line.hasPrefix("| `outcome`") {
            let isWords = !line.hasPrefix("| `fother.")
            let cell = line.split(separator: "|")[1]
            for word in Self.quoted(cell) where !(isWords && ["version"].contains(word)) {
                let there = isWords ? text.contains("\"\(word)\"") : text.contains("var \(word)")
                #expect(there, "docs/cli.md names \(word), which the program never says")
            }
        }
    }
}
