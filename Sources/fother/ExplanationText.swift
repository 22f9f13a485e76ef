// Prints what changed for a person who has to decide: source first, instructions side by side where there is none.

import LivePatchBuilder

enum ExplanationText {
    /// Width of one of the two columns of instructions.
    static let column = 46
    static let context = 2
    /// Lines of instructions beyond this many of one function are counted.
    static let rowsMax = 400

    static func show(_ functions: [FunctionChange], sources: [SourceChange]) {
        for s in sources {
            Output.line()
            Output.line("  " + Theme.strong(s.name) + Theme.quiet("  \(s.file)"))
            for line in s.lines { Output.line("    " + painted(line)) }
        }
        // A function of the patch is told in terms of the source where a source function of its name differs.
        let told = Set(sources.map(\.name))
        for f in functions where !told.contains(String(f.name.prefix { $0 != "." && $0 != "@" })) {
            Output.line()
            Output.line("  " + Theme.strong(f.name) + Theme.quiet("  \(f.why)"))
            show(f.rows)
        }
    }

    private static func painted(_ line: String) -> String {
        switch line.first {
        case "+": Theme.good(line)
        case "-": Theme.exposed(line)
        default: Theme.quiet(line)
        }
    }

    private static func show(_ rows: [FunctionChange.Row]) {
        var skipped = false, shown = 0
        for (i, row) in rows.enumerated() {
            guard shown < rowsMax else {
                Output.line(Theme.quiet("    and \(rows.count - i) more rows"))
                return
            }
            let near = rows[max(0, i - context)...min(rows.count - 1, i + context)]
            if near.allSatisfy(\.isSame) {
                skipped = true
                continue
            }
            if skipped { Output.line(Theme.quiet("    …")) }
            skipped = false
            shown += 1
            let mark = row.isSame ? " " : row.old == nil ? ">" : row.new == nil ? "<" : "|"
            let left = String((row.old ?? "").prefix(column)), right = String((row.new ?? "").prefix(column))
            let text = left + String(repeating: " ", count: column - left.count) + " \(mark) " + right
            Output.line("    " + (row.isSame ? Theme.quiet(text) : text))
        }
    }
}
