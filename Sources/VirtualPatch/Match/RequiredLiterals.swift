// Which literals an expression cannot match without: read from its text, and only where that is plain.

extension Pattern {
    /// One literal of at least three bytes for each alternative; nil where one has none, or the text is not plain enough to tell.
    var requiredLiterals: [[UInt8]]? {
        guard !isExtended else { return nil }
        var reader = LiteralReader(Array(source.utf8))
        return reader.read()
    }
}

private struct LiteralReader {
    private let source: [UInt8]
    private var i = 0
    private var run: [UInt8] = []
    private var best: [UInt8] = []
    private var out: [[UInt8]] = []

    init(_ source: [UInt8]) { self.source = source }

    private mutating func close() {
        if run.count > best.count { best = run }
        run = []
    }

    mutating func read() -> [[UInt8]]? {
        while i < source.count {
            let c = source[i]
            i += 1
            switch c {
            case UInt8(ascii: "|"):
                close()
                guard best.count >= 3 else { return nil }
                out.append(best)
                best = []
            case UInt8(ascii: "("):
                guard skipGroup() else { return nil }
                close()
            case UInt8(ascii: "["):
                guard skipClass() else { return nil }
                close()
            case UInt8(ascii: "*"), UInt8(ascii: "?"), UInt8(ascii: "{"):
                // What stands before may be there no time.
                if !run.isEmpty { run.removeLast() }
                close()
                while c == UInt8(ascii: "{"), i < source.count, (source[i] >= 48 && source[i] <= 57) || ",}".utf8.contains(source[i]) {
                    i += 1
                }
            case UInt8(ascii: "+"), UInt8(ascii: "."), UInt8(ascii: "^"), UInt8(ascii: "$"): close()
            case UInt8(ascii: "\\"):
                guard i < source.count else { return nil }
                let e = source[i]
                i += 1
                if e == UInt8(ascii: "x"), i + 1 < source.count, let h = SuricataText.hexDigit(source[i]),
                    let l = SuricataText.hexDigit(source[i + 1])
                {
                    run.append(h << 4 | l)
                    i += 2
                } else if e < 128, !(e >= 48 && e <= 57), !(e | 32 >= 97 && e | 32 <= 122) {
                    run.append(e)
                } else if "dDwWsSbBrntvhHAzZ".utf8.contains(e) {
                    close()
                } else {
                    return nil
                }
            case 128...: close()
            default: run.append(c)
            }
        }
        close()
        guard best.count >= 3 else { return nil }
        return out + [best]
    }

    /// Behind `(`: to the end of the group. A group that changes how the rest is read ends it all.
    private mutating func skipGroup() -> Bool {
        if i < source.count, source[i] == UInt8(ascii: "*") { return false }
        if i + 1 < source.count, source[i] == UInt8(ascii: "?"), !":=!<P>".utf8.contains(source[i + 1]) { return false }
        var depth = 1
        while i < source.count {
            let c = source[i]
            i += 1
            switch c {
            case UInt8(ascii: "\\"): i += 1
            case UInt8(ascii: "["): guard skipClass() else { return false }
            case UInt8(ascii: "("):
                if i + 1 < source.count, source[i] == UInt8(ascii: "?"), !":=!<P>".utf8.contains(source[i + 1]) { return false }
                depth += 1
            case UInt8(ascii: ")"):
                depth -= 1
                if depth == 0 { return true }
            default: break
            }
        }
        return false
    }

    private mutating func skipClass() -> Bool {
        if i < source.count, source[i] == UInt8(ascii: "^") { i += 1 }
        if i < source.count, source[i] == UInt8(ascii: "]") { i += 1 }
        while i < source.count {
            let c = source[i]
            i += 1
            if c == UInt8(ascii: "\\") {
                i += 1
            } else if c == UInt8(ascii: "[") {
                if i < source.count, source[i] == UInt8(ascii: ":") { return false }
            } else if c == UInt8(ascii: "]") {
                return true
            }
        }
        return false
    }
}
