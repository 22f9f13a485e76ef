// Tables in the documents, read so that tests can hold them against the sources.

import Foundation

enum TextTable {
    /// The cells of every row of every table in a document, headings left out.
    static func rows(in document: String) throws -> [[String]] {
        let lines = try text(document).split(separator: "\n", omittingEmptySubsequences: false).map(String.init)
        var rows: [[String]] = []
        for (i, line) in lines.enumerated() where line.hasPrefix("|") && !line.hasPrefix("|-") {
            if i + 1 < lines.count, lines[i + 1].hasPrefix("|-") { continue }
            rows.append(line.dropFirst().dropLast().components(separatedBy: "|").map { $0.trimmingCharacters(in: .whitespaces) })
        }
        return rows
    }

    /// What stands between backquotes.
    static func quoted(_ text: String) -> [String] { text.matches(of: /`([^`\n]+)`/).map { String($0.1) } }

    static func text(_ document: String) throws -> String { try String(contentsOfFile: packageRoot + "/" + document, encoding: .utf8) }
}
