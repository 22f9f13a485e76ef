// The one door to the terminal: commands produce values, this prints them as a table or as JSON.

import ELF
import Foundation

/// The exit codes of every command; docs/cli.md lists them.
enum Exit {
    static let done: Int32 = 0
    static let error: Int32 = 1
    /// Something needs a person: exposed, refused, or waiting for a decision.
    static let actionNeeded: Int32 = 2
    static let couldNotTell: Int32 = 3
    static let noPermission: Int32 = 77
}

/// A table for people: columns padded to their widest cell, the last one free.
struct Table {
    var header: [String]
    var rows: [[Cell]] = []

    struct Cell {
        var text: String
        var paint: (String) -> String
        init(_ text: String, _ paint: @escaping (String) -> String = { $0 }) {
            self.text = text
            self.paint = paint
        }
    }

    init(_ header: String...) { self.header = header }

    mutating func add(_ cells: Cell...) { rows.append(cells) }

    func print() {
        var widths = header.map(\.count)
        for row in rows { for (i, cell) in row.enumerated() where i < widths.count { widths[i] = max(widths[i], cell.text.count) } }
        func line(_ cells: [Cell]) -> String {
            var out = ""
            for (i, cell) in cells.enumerated() {
                let isLast = i == cells.count - 1
                out += cell.paint(cell.text) + (isLast ? "" : String(repeating: " ", count: max(0, widths[i] - cell.text.count) + 2))
            }
            return out
        }
        Swift.print(line(header.map { Cell($0, Theme.quiet) }))
        for row in rows { Swift.print(line(row)) }
    }
}

enum Output {
    /// Prints `value` as JSON with sorted keys; every value has a `schema` key with name and version.
    static func json(_ value: some Encodable) throws {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .prettyPrinted, .withoutEscapingSlashes]
        Swift.print(String(decoding: try encoder.encode(value), as: UTF8.self))
    }

    static func line(_ text: String = "") { Swift.print(text) }

    /// To standard error: what went wrong, where, and what to do.
    static func complain(_ failure: Failure) {
        var text = Theme.exposedOnErrors("fother: ") + (failure.place.isEmpty ? "" : failure.place + ": ") + failure.sentence
        if !failure.remedy.isEmpty { text += "\n        " + failure.remedy }
        FileHandle.standardError.write(Data((text + "  [\(failure.code)]\n").utf8))
    }

    /// Progress on long work: only on a terminal, on standard error, overwritten by what follows.
    static func progress(_ text: String) {
        guard Theme.hasTerminalErrors else { return }
        FileHandle.standardError.write(Data("\r\u{1b}[K\(text)".utf8))
    }
    static func progressDone() { progress("") }
}

/// A failure as JSON carries it.
struct FailureValue: Encodable {
    var code: String
    var sentence: String
    var place: String
    var remedy: String

    init(_ f: Failure) {
        code = f.code
        sentence = f.sentence
        place = f.place
        remedy = f.remedy
    }
}
