// Every code that the program can say is documented, and no documented code is gone: an operator searches for them.

import Foundation
import Testing

@Suite struct CodesTests {
    private static let checkout = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent()
    /// Calls whose first argument, or second after a header, is a code.
    private static let sayers = ["Failure", "failure", "Finding", "refuse", "couldNotTell"]
    private static func said() throws -> Set<String> {
        var result: Set<String> = []
        let call = try Regex("(?:" + sayers.joined(separator: "|") + #")\(\s*(?:nil, |header, |[^"()]* \\? )?"([a-z]+(?:-[a-z]+)*)""#)
        // Codes chosen by a condition, or returned beside their sentence.
        let chosen = try Regex(#"(?:\? |: |\()"([a-z]+(?:-[a-z]+)+)"(?=$|,| :|\n)"#)
        let files = try #require(
            FileManager.default.enumerator(at: checkout.appendingPathComponent("Sources"), includingPropertiesForKeys: nil))
        for case let file as URL in files where file.pathExtension == "swift" {
            let text = try String(contentsOf: file, encoding: .utf8)
            for match in text.matches(of: call) { if let code = match[1].substring { result.insert(String(code)) } }
            guard file.path.contains("/Judge/") else { continue }
            for match in text.matches(of: chosen) { if let code = match[1].substring { result.insert(String(code)) } }
        }
        return result
    }

    private static func documented() throws -> Set<String> {
        let text = try String(contentsOf: checkout.appendingPathComponent("docs/codes.md"), encoding: .utf8)
        var result: Set<String> = []
        for line in text.split(separator: "\n") where line.hasPrefix("| `") {
            let cell = line.dropFirst(2).split(separator: "|")[0]
            for match in cell.matches(of: /`([a-z-]+)`/) { result.insert(String(match.1)) }
        }
        return result
    }

    @Test func everyCodeIsDocumented() throws {
        let missing = try Self.said().subtracting(Self.documented()).sorted()
        #expect(missing.isEmpty, "not in docs/codes.md: \(missing)")
    }

    @Test func noDocumentedCodeIsGone() throws {
        let gone = try Self.documented().subtracting(Self.said()).sorted()
        #expect(gone.isEmpty, "only in docs/codes.md: \(gone)")
    }
}
