// Splits C and C++ text into tokens and preprocessor directives. No header is read and no macro expanded: what is looked for
// is where text stands, not what it means.

/// One token, or one directive with the tokens of its line.
struct CToken: Sendable {
    enum Kind: Sendable, Equatable {
        case word, number, text, punctuation
        /// `#word …`; `text` is the word.
        case directive
        /// Not to be told: an unclosed literal, or another spelling of braces.
        case broken
    }
    var kind: Kind
    var text: String
    /// From 1.
    var line: Int
    /// For directives: the rest of the line.
    var rest: [CToken] = []

    func `is`(_ p: String) -> Bool { kind == .punctuation && text == p }
    /// What the directive says, in one spelling.
    var spelling: String { kind == .directive ? "#" + ([text] + rest.map(\.text)).joined(separator: " ") : text }
}

struct CTokens: Sendable {
    /// Longer files are not looked into.
    static let bytesMax = 32 << 20

    private(set) var tokens: [CToken] = []
    /// Trigraphs are read or not as the compiler is told; where they could make a difference, nothing is known.
    private(set) var hasTrigraphs = false

    private var bytes: [UInt8] = []
    private var lines: [Int32] = []
    private var at = 0

    init(_ source: [UInt8]) {
        splice(source)
        var isLineStart = true
        while at < bytes.count {
            let c = bytes[at]
            if c == UInt8(ascii: "\n") {
                isLineStart = true
                at += 1
            } else if Self.isBlank(c) {
                at += 1
            } else if skipComment() {
                continue
            } else if c == UInt8(ascii: "#"), isLineStart {
                directive()
                isLineStart = true
            } else {
                isLineStart = false
                tokens.append(next())
            }
        }
        bytes = []
        lines = []
    }

    /// Joins lines that end in a backslash, and remembers which line each byte was on.
    private mutating func splice(_ source: [UInt8]) {
        bytes.reserveCapacity(source.count)
        lines.reserveCapacity(source.count)
        var i = 0, line: Int32 = 1
        let question = UInt8(ascii: "?")
        while i < source.count {
            let c = source[i]
            if c == UInt8(ascii: "\\") {
                // gcc lets blanks stand between the backslash and the end of the line.
                var end = i + 1
                while end < source.count, source[end] != UInt8(ascii: "\n"), Self.isBlank(source[end]) { end += 1 }
                if end < source.count, source[end] == UInt8(ascii: "\n") {
                    line += 1
                    i = end + 1
                    continue
                }
            }
            if c == question, i + 2 < source.count, source[i + 1] == question, "/<>=".utf8.contains(source[i + 2]) { hasTrigraphs = true }
            bytes.append(c)
            lines.append(line)
            if c == UInt8(ascii: "\n") { line += 1 }
            i += 1
        }
    }

    private static func isBlank(_ c: UInt8) -> Bool { c == 32 || c == 9 || c == 11 || c == 12 || c == 13 }
    private static func isDigit(_ c: UInt8) -> Bool { c >= 48 && c <= 57 }
    private static func isWord(_ c: UInt8) -> Bool {
        (c >= 97 && c <= 122) || (c >= 65 && c <= 90) || c == 95 || c == 36 || c >= 128 || isDigit(c)
    }
    private func peek(_ n: Int) -> UInt8 { at + n < bytes.count ? bytes[at + n] : 0 }

    private mutating func skipComment() -> Bool {
        guard bytes[at] == UInt8(ascii: "/") else { return false }
        if peek(1) == UInt8(ascii: "/") {
            while at < bytes.count, bytes[at] != UInt8(ascii: "\n") { at += 1 }
            return true
        }
        guard peek(1) == UInt8(ascii: "*") else { return false }
        let line = Int(lines[at])
        at += 2
        while at < bytes.count {
            if bytes[at] == UInt8(ascii: "*"), peek(1) == UInt8(ascii: "/") {
                at += 2
                return true
            }
            at += 1
        }
        tokens.append(CToken(kind: .broken, text: "/*", line: line))
        return true
    }

    private mutating func directive() {
        let line = Int(lines[at])
        at += 1
        var rest: [CToken] = []
        var isProse = false
        while at < bytes.count, bytes[at] != UInt8(ascii: "\n") {
            if Self.isBlank(bytes[at]) {
                at += 1
            } else if skipComment() {
                continue
            } else if isProse {
                // Not C: apostrophes do not open anything here.
                let start = at
                while at < bytes.count, bytes[at] != UInt8(ascii: "\n"), !Self.isBlank(bytes[at]) { at += 1 }
                rest.append(CToken(kind: .word, text: String(decoding: bytes[start..<at], as: UTF8.self), line: line))
            } else {
                rest.append(next())
                if rest.count == 1 { isProse = ["error", "warning", "ident", "line"].contains(rest[0].text) }
            }
        }
        guard let name = rest.first else { return }
        tokens.append(CToken(kind: .directive, text: name.text, line: line, rest: Array(rest.dropFirst())))
    }

    private mutating func next() -> CToken {
        let start = at, line = Int(lines[at]), c = bytes[at]
        func token(_ kind: CToken.Kind) -> CToken {
            CToken(kind: kind, text: String(decoding: bytes[start..<at], as: UTF8.self), line: line)
        }
        if Self.isDigit(c) || c == UInt8(ascii: ".") && Self.isDigit(peek(1)) {
            // A preprocessing number, which is more than a number.
            at += 1
            while at < bytes.count {
                let d = bytes[at], e = bytes[at - 1] | 0x20
                let isSign = (d == 43 || d == 45) && (e == UInt8(ascii: "e") || e == UInt8(ascii: "p"))
                let isSeparator = d == UInt8(ascii: "'") && Self.isWord(peek(1)) && at > start
                guard Self.isWord(d) || d == 46 || isSign || isSeparator else { break }
                at += 1
            }
            return token(.number)
        }
        if Self.isWord(c) {
            while at < bytes.count, Self.isWord(bytes[at]) { at += 1 }
            let prefix = bytes[start..<at]
            if at < bytes.count, bytes[at] == UInt8(ascii: "\"") || bytes[at] == UInt8(ascii: "'"), prefix.count <= 3 {
                switch String(decoding: prefix, as: UTF8.self) {
                case "L", "u", "U", "u8": return literal(start, line)
                case "R", "LR", "uR", "UR", "u8R": if bytes[at] == UInt8(ascii: "\"") { return rawLiteral(start, line) }
                default: break
                }
            }
            return token(.word)
        }
        if c == UInt8(ascii: "\"") || c == UInt8(ascii: "'") { return literal(start, line) }
        at += 1
        // Pairs that would be misread as brackets of their own are all that matters; others stay single characters.
        let d = at < bytes.count ? bytes[at] : 0
        switch (c, d) {
        case (UInt8(ascii: "<"), UInt8(ascii: "%")), (UInt8(ascii: "%"), UInt8(ascii: ">")), (UInt8(ascii: "%"), UInt8(ascii: ":")):
            at += 1
            return token(.broken)
        case (UInt8(ascii: "="), UInt8(ascii: "=")), (UInt8(ascii: "!"), UInt8(ascii: "=")), (UInt8(ascii: "<"), UInt8(ascii: "=")),
            (UInt8(ascii: ">"), UInt8(ascii: "=")), (UInt8(ascii: "-"), UInt8(ascii: ">")), (UInt8(ascii: ":"), UInt8(ascii: ":")),
            (UInt8(ascii: "#"), UInt8(ascii: "#")):
            at += 1
        default: break
        }
        return token(.punctuation)
    }

    /// From `at`, which stands on the opening quote.
    private mutating func literal(_ start: Int, _ line: Int) -> CToken {
        let quote = bytes[at]
        at += 1
        while at < bytes.count, bytes[at] != UInt8(ascii: "\n") {
            let c = bytes[at]
            at += c == UInt8(ascii: "\\") && at + 1 < bytes.count && bytes[at + 1] != UInt8(ascii: "\n") ? 2 : 1
            if c == quote { return CToken(kind: .text, text: String(decoding: bytes[start..<at], as: UTF8.self), line: line) }
        }
        return CToken(kind: .broken, text: String(decoding: bytes[start..<min(at, bytes.count)], as: UTF8.self), line: line)
    }

    private mutating func rawLiteral(_ start: Int, _ line: Int) -> CToken {
        at += 1
        var end: [UInt8] = [UInt8(ascii: ")")]
        while at < bytes.count, bytes[at] != UInt8(ascii: "("), end.count <= 17 {
            end.append(bytes[at])
            at += 1
        }
        end.append(UInt8(ascii: "\""))
        while at < bytes.count {
            if bytes[at] == end[0], at + end.count <= bytes.count, bytes[at..<at + end.count].elementsEqual(end) {
                at += end.count
                return CToken(kind: .text, text: String(decoding: bytes[start..<at], as: UTF8.self), line: line)
            }
            at += 1
        }
        return CToken(kind: .broken, text: "R\"", line: line)
    }
}
