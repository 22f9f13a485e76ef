// Cuts rule files in the Suricata language into rules, headers and options; knows no keyword.

import ELF

/// One rule's text, with the line it starts on.
struct SuricataRuleText {
    var line: Int
    var header: [Substring]
    var options: [(name: String, value: String?)]
}

enum SuricataText {
    /// A rule file is read whole; more is no rule file.
    static let fileLimitBytes = 64 << 20
    static let ruleLimitBytes = 64 << 10
    static let optionLimit = 512

    /// Calls `body` for each rule with its first line's number, continued lines joined. Comments and empty lines are no rules.
    static func forEachRule(_ bytes: [UInt8], _ body: (Int, ArraySlice<UInt8>) -> Void) {
        var line = 1
        var start = 0
        var joined: [UInt8] = []
        var joinedLine = 1
        while start < bytes.count {
            let end = bytes[start...].firstIndex(of: 10) ?? bytes.count
            var stop = end
            if stop > start, bytes[stop - 1] == 13 { stop -= 1 }
            var lead = start
            while lead < stop, bytes[lead] == 32 || bytes[lead] == 9 { lead += 1 }
            let isContinued = stop > lead && bytes[stop - 1] == UInt8(ascii: "\\")
            if joined.isEmpty && (lead == stop || bytes[lead] == UInt8(ascii: "#")) {
                // no rule
            } else if isContinued {
                if joined.isEmpty { joinedLine = line }
                joined += bytes[lead..<(stop - 1)]
            } else if joined.isEmpty {
                body(line, bytes[lead..<stop])
            } else {
                joined += bytes[lead..<stop]
                body(joinedLine, joined[...])
                joined = []
            }
            line += 1
            start = end + 1
        }
        if !joined.isEmpty { body(joinedLine, joined[...]) }
    }

    static func parse(_ bytes: ArraySlice<UInt8>, line: Int) throws(Failure) -> SuricataRuleText {
        guard bytes.count <= ruleLimitBytes else { throw Failure("rule-malformed", "the rule is longer than \(ruleLimitBytes) bytes") }
        guard let open = bytes.firstIndex(of: UInt8(ascii: "(")), let close = bytes.lastIndex(of: UInt8(ascii: ")")), close > open else {
            throw Failure("rule-malformed", "no options in parentheses")
        }
        guard let head = String(validating: bytes[..<open], as: UTF8.self) else {
            throw Failure("rule-malformed", "the header is not UTF-8")
        }
        let rest = bytes[(close + 1)...]
        guard rest.allSatisfy({ $0 == 32 || $0 == 9 }) else { throw Failure("rule-malformed", "text follows the closing parenthesis") }
        return SuricataRuleText(line: line, header: words(head), options: try options(bytes[(open + 1)..<close]))
    }

    /// Words of a header; brackets keep their spaces together.
    private static func words(_ text: String) -> [Substring] {
        var out: [Substring] = []
        var level = 0
        var start: String.Index?
        for i in text.indices {
            let c = text[i]
            if c == "[" { level += 1 }
            if c == "]" { level -= 1 }
            if (c == " " || c == "\t") && level <= 0 {
                if let s = start { out.append(text[s..<i]) }
                start = nil
            } else if start == nil {
                start = i
            }
        }
        if let s = start { out.append(text[s...]) }
        return out
    }

    private static func options(_ bytes: ArraySlice<UInt8>) throws(Failure) -> [(name: String, value: String?)] {
        var out: [(name: String, value: String?)] = []
        var start = bytes.startIndex
        var i = start
        while i < bytes.endIndex {
            if bytes[i] == UInt8(ascii: "\\") {
                i += 2
                continue
            }
            if bytes[i] == UInt8(ascii: ";") {
                if let option = try option(bytes[start..<i]) { out.append(option) }
                start = i + 1
                guard out.count <= optionLimit else { throw Failure("rule-malformed", "more than \(optionLimit) options") }
            }
            i += 1
        }
        if start < bytes.endIndex, let last = try option(bytes[start...]) {
            throw Failure("rule-malformed", "the option '\(last.name)' lacks its semicolon")
        }
        return out
    }

    private static func option(_ bytes: ArraySlice<UInt8>) throws(Failure) -> (name: String, value: String?)? {
        var s = bytes
        while let c = s.first, c == 32 || c == 9 { s.removeFirst() }
        while let c = s.last, c == 32 || c == 9 { s.removeLast() }
        guard !s.isEmpty else { return nil }
        guard let text = String(validating: s, as: UTF8.self) else { throw Failure("rule-malformed", "an option is not UTF-8") }
        guard let colon = s.firstIndex(of: UInt8(ascii: ":")) else { return (text, nil) }
        let split = text.utf8.index(text.utf8.startIndex, offsetBy: colon - s.startIndex)
        return (String(text[..<split].trimmed), String(text[text.index(after: split)...].trimmed))
    }

    /// The inside of quotation marks, or the text itself; `isNegated` when a `!` stood before.
    static func unquoted(_ text: String) -> (isNegated: Bool, text: Substring) {
        var s = text[...].trimmed
        var negated = false
        if s.hasPrefix("!") {
            negated = true
            s = s.dropFirst().trimmed
        }
        if s.count >= 2, s.hasPrefix("\""), s.hasSuffix("\"") { s = s.dropFirst().dropLast() }
        return (negated, s)
    }

    /// `a|0d 0a|b` with `\"`, `\;`, `\\` and `\:` unescaped.
    static func contentBytes(_ text: Substring) throws(Failure) -> [UInt8] {
        var out: [UInt8] = []
        var inHex = false
        var high: UInt8?
        var isEscaped = false
        for c in text.utf8 {
            if inHex {
                if c == UInt8(ascii: "|") {
                    guard high == nil else { throw Failure("rule-malformed", "an odd number of hexadecimal digits") }
                    inHex = false
                } else if let d = hexDigit(c) {
                    if let h = high {
                        out.append(h << 4 | d)
                        high = nil
                    } else {
                        high = d
                    }
                } else if c != 32 && c != 9 {
                    throw Failure("rule-malformed", "'\(Character(UnicodeScalar(c)))' is no hexadecimal digit")
                }
            } else if isEscaped {
                guard [UInt8(ascii: "\""), UInt8(ascii: ";"), UInt8(ascii: "\\"), UInt8(ascii: ":")].contains(c) else {
                    throw Failure("rule-malformed", "'\\\(Character(UnicodeScalar(c)))' is no escape in content")
                }
                out.append(c)
                isEscaped = false
            } else if c == UInt8(ascii: "\\") {
                isEscaped = true
            } else if c == UInt8(ascii: "|") {
                inHex = true
            } else {
                out.append(c)
            }
        }
        guard !inHex, !isEscaped else { throw Failure("rule-malformed", "content ends within an escape") }
        guard !out.isEmpty else { throw Failure("rule-malformed", "content is empty") }
        return out
    }

    static func hexDigit(_ c: UInt8) -> UInt8? {
        switch c {
        case 48...57: c - 48
        case 65...70: c - 55
        case 97...102: c - 87
        default: nil
        }
    }
}
