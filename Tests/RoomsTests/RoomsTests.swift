// Keeps the house in order: imports point down, `unsafe` has an address, files have names and opening sentences.

import Foundation
import Testing

@Suite struct RoomsTests {
    @Test func everyImportIsInTheTable() throws {
        for room in rooms {
            for file in try SourceFile.all(under: "Sources/\(room.name)") where file.isSwift {
                for module in file.imports where !room.may.contains(module) {
                    Issue.record("\(file.path) imports \(module); \(room.name) \(room.because)")
                }
            }
        }
    }

    @Test func everyFolderUnderSourcesIsARoomAndNoRoomIsEmpty() throws {
        let folders = try FileManager.default.contentsOfDirectory(atPath: packageRoot + "/Sources")
        #expect(Set(folders) == Set(rooms.map(\.name)), "Sources/ and the table in Rooms.swift list different rooms")
        for room in rooms {
            let files = try SourceFile.all(under: "Sources/\(room.name)").filter { $0.isCode && !$0.isOnlyComments }
            #expect(!files.isEmpty, "room \(room.name) has no code: a renamed room must not pass by being empty")
        }
    }

    @Test func unsafeHasAnAddress() throws {
        var seen: Set<String> = []
        for file in try SourceFile.all(under: "Sources") where file.isSwift && file.codeContains(word: "unsafe") {
            seen.insert(file.path)
            if !unsafeFiles.contains(file.path) {
                Issue.record("\(file.path) says `unsafe`; glue belongs in one of: \(unsafeFiles.sorted())")
            }
        }
        #expect(unsafeFiles.subtracting(seen).isEmpty, "listed, but no longer in need of `unsafe`: shorten the list")
    }

    @Test func noFileIsADrawer() throws {
        for file in try SourceFile.all(under: "Sources") + SourceFile.all(under: "Tests") {
            for drawer in drawerNames where file.name.contains(drawer) {
                Issue.record("\(file.path): '\(drawer)' does not say what the file is for; what noun is missing?")
            }
        }
    }

    @Test func everyFileOpensWithItsSentence() throws {
        for file in try SourceFile.all(under: "Sources") + SourceFile.all(under: "Tests") where file.isCode {
            let first = file.lines.first { !$0.hasPrefix("// swift-tools-version") } ?? ""
            let opens = (first.hasPrefix("// ") || first.hasPrefix("/* ")) && first.count >= 25
            #expect(
                opens, "\(file.path) opens with '\(first.prefix(40))', not with the sentence that says what it is for")
        }
    }

    /// A trap in a tool that holds other people's processes stopped is worse than an error; and nothing is left behind.
    @Test func nothingTrapsOnPurposeAndNothingIsLeftBehind() throws {
        let traps = ["try!", "as!", "fatalError(", "preconditionFailure("]
        // Spelled in halves so that this file does not find itself.
        let leftovers = ["TO" + "DO", "FIX" + "ME", "/wo" + "rk/", "/tmp/cor" + "pus"]
        for file in try SourceFile.all(under: "Sources") where file.isSwift {
            for trap in traps where file.code.contains(where: { $0.contains(trap) }) {
                Issue.record("\(file.path) says \(trap)…; return a Failure, or a value that says it could not tell")
            }
        }
        for folder in ["Sources", "Tests", "docs", "scripts", "Fixtures"] {
            for file in try SourceFile.all(under: folder) {
                for word in leftovers where file.lines.contains(where: { $0.contains(word) }) {
                    Issue.record("\(file.path) contains '\(word)'")
                }
            }
        }
    }
}

/// Where the package lies, seen from this file.
let packageRoot = URL(fileURLWithPath: #filePath)
    .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent().path

/// One text file of the package, by its path relative to the package.
struct SourceFile {
    let path: String
    let lines: [String]

    var name: String { String(path.split(separator: "/").last ?? "") }
    var isSwift: Bool { path.hasSuffix(".swift") }
    var isCode: Bool { isSwift || path.hasSuffix(".c") || path.hasSuffix(".h") }

    /// Lines without `//` comments. Good enough for words that never stand inside a string here.
    var code: [String] {
        lines.map { line in
            guard let comment = line.range(of: "//") else { return line }
            return String(line[..<comment.lowerBound])
        }
    }

    var isOnlyComments: Bool { code.allSatisfy { $0.allSatisfy(\.isWhitespace) } }

    var imports: [String] {
        code.compactMap { line in
            var words = line.split(separator: " ").map(String.init)
            while let first = words.first, first.hasPrefix("@") || ["public", "internal", "package"].contains(first) {
                words.removeFirst()
            }
            guard words.first == "import", words.count >= 2 else { return nil }
            let kinds = ["struct", "class", "enum", "protocol", "func", "var", "let", "typealias"]
            let module = kinds.contains(words[1]) && words.count >= 3 ? words[2] : words[1]
            return module.split(separator: ".").first.map(String.init)
        }
    }

    func codeContains(word: String) -> Bool {
        code.contains { line in
            line.split(whereSeparator: { !($0.isLetter || $0.isNumber || $0 == "_") }).contains { $0 == word }
        }
    }

    static func all(under folder: String) throws -> [SourceFile] {
        let root = packageRoot + "/" + folder
        guard FileManager.default.fileExists(atPath: root) else { return [] }
        return try FileManager.default.subpathsOfDirectory(atPath: root).sorted().compactMap { sub in
            guard let text = try? String(contentsOfFile: root + "/" + sub, encoding: .utf8) else { return nil }
            return SourceFile(
                path: folder + "/" + sub,
                lines: text.split(separator: "\n", omittingEmptySubsequences: false).map(String.init))
        }
    }
}
