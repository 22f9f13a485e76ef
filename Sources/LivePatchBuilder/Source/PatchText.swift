// A patch as text: which of its parts are about files that go into the build.

import ELF

enum PatchText {
    /// The parts about files that may be code, without those about tests, documentation and packaging data, and without what stands
    /// between parts. A patch that does more than change lines, as git writes renames and modes, is given back whole.
    static func ofCode(_ patch: [UInt8]) -> [UInt8] {
        let lines = patch.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false)
        let more = ["rename ", "copy ", "old mode ", "GIT binary patch", "Binary files "].map { Array($0.utf8) }
        var result: [UInt8] = []
        var isKept = false
        /// Lines of the part's current piece that are still to come, of the old and the new file.
        var left = (old: 0, new: 0)
        var at = 0
        func keep(_ line: ArraySlice<UInt8>) { result += Array(line) + [UInt8(ascii: "\n")] }
        while at < lines.count {
            let line = lines[at]
            defer { at += 1 }
            if left.old > 0 || left.new > 0 {
                switch line.first {
                case UInt8(ascii: "-"): left.old -= 1
                case UInt8(ascii: "+"): left.new -= 1
                case UInt8(ascii: "\\"): break
                default: left = (left.old - 1, left.new - 1)
                }
                if isKept { keep(line) }
                continue
            }
            if more.contains(where: line.starts(with:)) { return patch }
            if line.starts(with: Array("--- ".utf8)), at + 1 < lines.count, lines[at + 1].starts(with: Array("+++ ".utf8)) {
                let names = [line, lines[at + 1]].map(path)
                isKept = names.contains { !$0.isEmpty && SourceFileKind(path: $0) != .notCode }
                if isKept {
                    keep(line)
                    keep(lines[at + 1])
                }
                at += 1
            } else if let counts = counts(line) {
                left = counts
                if isKept { keep(line) }
            } else if line.first == UInt8(ascii: "\\"), isKept {
                keep(line)
            }
        }
        return result
    }

    /// `--- a/src/x.c<TAB>…` without the first folder; empty for `/dev/null`.
    private static func path(_ line: ArraySlice<UInt8>) -> String {
        let name = line.dropFirst(4).prefix { $0 != UInt8(ascii: "\t") && $0 != UInt8(ascii: " ") && $0 != UInt8(ascii: "\r") }
        let text = String(decoding: name, as: UTF8.self)
        guard text != "/dev/null", let slash = text.firstIndex(of: "/") else { return "" }
        return String(text[text.index(after: slash)...])
    }

    /// Of `@@ -12,3 +14 @@`: 3 and 1. Nil for other lines, and for numbers that no file has.
    private static func counts(_ line: ArraySlice<UInt8>) -> (old: Int, new: Int)? {
        let words = String(decoding: line.prefix(80), as: UTF8.self).split(separator: " ")
        guard words.count >= 4, words[0] == "@@", words[1].hasPrefix("-"), words[2].hasPrefix("+"), words[3].hasPrefix("@@") else {
            return nil
        }
        func count(_ word: Substring) -> Int? {
            let parts = word.dropFirst().split(separator: ",", omittingEmptySubsequences: false)
            let n = parts.count == 1 ? 1 : Int(parts[1])
            return n.flatMap { $0 >= 0 && $0 < 1 << 30 ? $0 : nil }
        }
        guard let old = count(words[1]), let new = count(words[2]) else { return nil }
        return (old, new)
    }
}
