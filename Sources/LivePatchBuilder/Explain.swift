// What changed, function by function, for a person: the instructions of both builds side by side, and the lines of both sources.

import ELF
import MachineCode

/// One function of a patch, as it was and as it is.
public struct FunctionChange: Sendable {
    /// Longer functions are shown up to here.
    public static let rowsMax = 20_000

    public struct Row: Sendable {
        /// Nil where only the other build has an instruction.
        public var old: String?
        public var new: String?
        public var isSame: Bool
    }
    public var name: String
    public var why: String
    public var rows: [Row]

    /// `o`: nil for a function that only the new build has.
    init(_ c: Comparison, _ n: Int, _ o: Int?, why: String) {
        self.why = why
        name = c.new.name(n)
        rows = []
        func text(_ image: CodeImage, _ f: CodeFunction, _ i: Instruction) -> String {
            let at = f.start + i.offset
            return (image.file.read(at, i.length).flatMap { disassemble($0, at: at.value) }) ?? "?"
        }
        let b = c.new.functions[n]
        guard let o else {
            rows = b.instructions.prefix(Self.rowsMax).map { Row(old: nil, new: text(c.new, b, $0), isSame: false) }
            return
        }
        let a = c.old.functions[o]
        var i = 0, j = 0
        func isSame(_ x: Instruction, _ y: Instruction) -> Bool {
            guard x.length == y.length, x.end <= a.normalized.count, y.end <= b.normalized.count else { return false }
            return a.normalized[x.offset..<x.end] == b.normalized[y.offset..<y.end]
        }
        for (x, y) in Alignment.pairs(a.instructions.map(shape), b.instructions.map(shape)) + [(a.instructions.count, b.instructions.count)]
        {
            while i < x {
                rows.append(Row(old: text(c.old, a, a.instructions[i]), new: nil, isSame: false))
                i += 1
            }
            while j < y {
                rows.append(Row(old: nil, new: text(c.new, b, b.instructions[j]), isSame: false))
                j += 1
            }
            guard x < a.instructions.count, y < b.instructions.count, rows.count < Self.rowsMax else { break }
            rows.append(
                Row(
                    old: text(c.old, a, a.instructions[x]), new: text(c.new, b, b.instructions[y]),
                    isSame: isSame(a.instructions[x], b.instructions[y])))
            (i, j) = (x + 1, y + 1)
        }
    }
}

/// One function whose source differs.
public struct SourceChange: Sendable {
    public var file: String
    public var name: String
    /// As diff -u has them: each begins with a blank, `-` or `+`; `…` stands for lines that are the same.
    public var lines: [String]

    static let context = 2

    /// Lines of a function in both versions; either may be empty.
    init(file: String, name: String, old: [String], new: [String]) {
        self.file = file
        self.name = name
        var all: [String] = [], i = 0, j = 0
        for (x, y) in Alignment.pairs(old, new) + [(old.count, new.count)] {
            while i < x {
                all.append("-" + old[i])
                i += 1
            }
            while j < y {
                all.append("+" + new[j])
                j += 1
            }
            guard x < old.count else { break }
            all.append(" " + old[x])
            (i, j) = (x + 1, y + 1)
        }
        lines = Self.shortened(all) { $0.hasPrefix(" ") }
    }

    /// Keeps what differs and its surroundings.
    static func shortened(_ lines: [String], isSame: (String) -> Bool) -> [String] {
        var result: [String] = [], skipped = false
        for (i, line) in lines.enumerated() {
            let near = lines[max(0, i - context)...min(lines.count - 1, i + context)]
            if near.allSatisfy(isSame) {
                skipped = true
                continue
            }
            if skipped { result.append("…") }
            skipped = false
            result.append(line)
        }
        return result
    }
}
