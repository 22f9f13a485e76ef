// Values of the Suricata language's byte operations, sizes, expressions, bits and thresholds.

import ELF

/// Names of a rule's variables, numbered in the order they are set.
struct VariableNames {
    static let limit = 16
    var names: [String] = []

    func amount(_ text: Substring) throws(Failure) -> Amount {
        let s = text.trimmed
        if let n = SuricataOperations.integer(s) { return .value(n) }
        guard let i = names.firstIndex(of: String(s)) else {
            throw Failure("rule-malformed", "'\(s)' is neither a number nor a variable set before")
        }
        return .variable(i)
    }

    mutating func define(_ name: Substring) throws(Failure) -> Int {
        guard let first = name.first, first.isLetter || first == "_" else { throw Failure("rule-malformed", "'\(name)' is no name") }
        if let i = names.firstIndex(of: String(name)) { return i }
        guard names.count < Self.limit else { throw Failure("rule-malformed", "more than \(Self.limit) variables") }
        names.append(String(name))
        return names.count - 1
    }
}

enum SuricataOperations {
    /// Offsets beyond this are no place in a buffer.
    static let amountLimit = 1 << 20

    static func integer(_ text: Substring) -> Int? {
        let s = text.trimmed
        if s.hasPrefix("0x") || s.hasPrefix("0X") { return UInt64(s.dropFirst(2), radix: 16).flatMap { Int(exactly: $0) } }
        return Int(s)
    }

    static func words(_ text: String) -> [Substring] {
        text.split(separator: ",", omittingEmptySubsequences: false).map(\.trimmed)
    }

    /// `5`, `>5`, `<5`, `>=5`, `<=5`, `!5`, `5<>9`.
    static func size(_ text: String) throws(Failure) -> SizeTest {
        let s = text.filter { $0 != " " }[...]
        func number(_ t: Substring) throws(Failure) -> Int {
            guard let n = integer(t), n >= 0 else { throw Failure("rule-malformed", "'\(t)' is no size") }
            return n
        }
        if let gap = s.firstRange(of: "<>") {
            let a = try number(s[..<gap.lowerBound]), b = try number(s[gap.upperBound...])
            guard a < b else { throw Failure("rule-malformed", "the range '\(s)' is empty") }
            return SizeTest(kind: .between, low: a, high: b)
        }
        if s.hasPrefix("<=") { return SizeTest(kind: .lessOrEqual, low: try number(s.dropFirst(2))) }
        if s.hasPrefix(">=") { return SizeTest(kind: .moreOrEqual, low: try number(s.dropFirst(2))) }
        if s.hasPrefix("<") { return SizeTest(kind: .less, low: try number(s.dropFirst())) }
        if s.hasPrefix(">") { return SizeTest(kind: .more, low: try number(s.dropFirst())) }
        if s.hasPrefix("!") { return SizeTest(kind: .notEqual, low: try number(s.dropFirst())) }
        if s.hasPrefix("=") { return SizeTest(kind: .equal, low: try number(s.dropFirst())) }
        return SizeTest(kind: .equal, low: try number(s))
    }

    private static func checked(_ amount: Amount) throws(Failure) -> Amount {
        if case .value(let n) = amount, abs(n) > amountLimit { throw Failure("rule-malformed", "\(n) is beyond \(amountLimit)") }
        return amount
    }

    static func amount(_ text: String, _ names: VariableNames) throws(Failure) -> Amount { try checked(try names.amount(text[...])) }

    /// A word such as `relative` or `little` that several operations share; false when it is none.
    private static func format(
        _ word: Substring, _ format: inout NumberFormat, _ isRelative: inout Bool, _ mask: inout UInt64?
    ) throws(Failure) -> Bool {
        switch word {
        case "relative": isRelative = true
        case "big": format.isLittleEndian = false
        case "little": format.isLittleEndian = true
        case "string": format.digits = format.digits ?? 0
        case "hex": format.digits = 16
        case "dec": format.digits = 10
        case "oct": format.digits = 8
        default:
            guard word.hasPrefix("bitmask ") else { return false }
            let text = word.dropFirst(8).trimmed
            let hex = text.hasPrefix("0x") || text.hasPrefix("0X") ? text.dropFirst(2) : text
            guard let m = UInt64(hex, radix: 16), m <= 0xffff_ffff else { throw Failure("rule-malformed", "'\(text)' is no mask") }
            mask = m
        }
        return true
    }

    private static func widthIsReadable(_ count: Amount, _ format: NumberFormat) throws(Failure) {
        guard case .value(let n) = count else { return }
        guard n >= 0, format.digits == nil ? n <= 8 : n <= 23 else { throw Failure("rule-malformed", "\(n) bytes make no number") }
    }

    static func byteTest(_ value: String, _ names: VariableNames) throws(Failure) -> ByteTest {
        let w = words(value)
        guard w.count >= 4 else { throw Failure("rule-malformed", "byte_test takes at least 4 values") }
        var op = w[1]
        var negated = false
        if op.hasPrefix("!"), op != "!=" {
            negated = true
            op = op.dropFirst().trimmed
            if op.isEmpty { op = "=" }
        }
        guard let comparison = Comparison(rawValue: String(op)) else { throw Failure("rule-malformed", "'\(w[1])' compares nothing") }
        var t = ByteTest(
            count: try names.amount(w[0]), comparison: comparison, isNegated: negated, value: try names.amount(w[2]),
            offset: try checked(try names.amount(w[3])))
        for word in w.dropFirst(4) {
            guard try format(word, &t.format, &t.isRelative, &t.mask) else {
                throw Failure("rule-option-unsupported", "byte_test with '\(word)' is not supported")
            }
        }
        if t.format.digits == 0 { t.format.digits = 10 }
        try widthIsReadable(t.count, t.format)
        return t
    }

    static func byteJump(_ value: String, _ names: VariableNames) throws(Failure) -> ByteJump {
        let w = words(value)
        guard w.count >= 2 else { throw Failure("rule-malformed", "byte_jump takes at least 2 values") }
        var j = ByteJump(count: try names.amount(w[0]), offset: try checked(try names.amount(w[1])))
        for word in w.dropFirst(2) {
            if try format(word, &j.format, &j.isRelative, &j.mask) { continue }
            switch true {
            case word == "align": j.aligns = true
            case word == "from_beginning": j.fromBeginning = true
            case word == "from_end": j.fromEnd = true
            case word.hasPrefix("multiplier "):
                guard let m = integer(word.dropFirst(11)), (1...65535).contains(m) else { throw Failure("rule-malformed", "'\(word)'") }
                j.multiplier = m
            case word.hasPrefix("post_offset "): j.postOffset = try checked(try names.amount(word.dropFirst(12)))
            default: throw Failure("rule-option-unsupported", "byte_jump with '\(word)' is not supported")
            }
        }
        if j.format.digits == 0 { j.format.digits = 10 }
        try widthIsReadable(j.count, j.format)
        return j
    }

    static func byteExtract(_ value: String, _ names: inout VariableNames) throws(Failure) -> ByteExtract {
        let w = words(value)
        guard w.count >= 3, let count = integer(w[0]) else { throw Failure("rule-malformed", "byte_extract takes at least 3 values") }
        let offset = try checked(try names.amount(w[1]))
        var e = ByteExtract(count: count, offset: offset, variable: try names.define(w[2]))
        for word in w.dropFirst(3) {
            if try format(word, &e.format, &e.isRelative, &e.mask) { continue }
            switch true {
            case word.hasPrefix("multiplier "):
                guard let m = integer(word.dropFirst(11)), (1...65535).contains(m) else { throw Failure("rule-malformed", "'\(word)'") }
                e.multiplier = m
            case word == "align 2": e.alignment = 2
            case word == "align 4": e.alignment = 4
            default: throw Failure("rule-option-unsupported", "byte_extract with '\(word)' is not supported")
            }
        }
        if e.format.digits == 0 { e.format.digits = 10 }
        try widthIsReadable(.value(e.count), e.format)
        return e
    }

    static func byteMath(_ value: String, _ names: inout VariableNames) throws(Failure) -> ByteMath {
        var m = ByteMath(count: .value(0), offset: 0, operation: "+", operand: .value(0), variable: 0)
        var seen: Set<Substring> = []
        for word in words(value) {
            if try format(word, &m.format, &m.isRelative, &m.mask) { continue }
            let parts = word.split(separator: " ", maxSplits: 1).map(\.trimmed)
            guard parts.count == 2 else { throw Failure("rule-option-unsupported", "byte_math with '\(word)' is not supported") }
            seen.insert(parts[0])
            switch parts[0] {
            case "bytes": m.count = try names.amount(parts[1])
            case "offset":
                guard let n = integer(parts[1]), abs(n) <= amountLimit else { throw Failure("rule-malformed", "'\(word)'") }
                m.offset = n
            case "oper":
                guard ["+", "-", "*", "/", "<<", ">>"].contains(parts[1]) else { throw Failure("rule-malformed", "'\(word)'") }
                m.operation = parts[1].first ?? "+"
            case "rvalue": m.operand = try names.amount(parts[1])
            case "result": m.variable = try names.define(parts[1].hasPrefix("var ") ? parts[1].dropFirst(4).trimmed : parts[1])
            case "endian": m.format.isLittleEndian = parts[1] == "little"
            case "string": m.format.digits = parts[1] == "hex" ? 16 : parts[1] == "oct" ? 8 : 10
            default: throw Failure("rule-option-unsupported", "byte_math with '\(word)' is not supported")
            }
        }
        guard seen.isSuperset(of: ["bytes", "offset", "oper", "rvalue", "result"]) else {
            throw Failure("rule-malformed", "byte_math needs bytes, offset, oper, rvalue and result")
        }
        if m.format.digits == 0 { m.format.digits = 10 }
        try widthIsReadable(m.count, m.format)
        return m
    }

    static func dataAt(_ value: String, _ names: VariableNames) throws(Failure) -> DataAt {
        let w = words(value)
        var first = w[0]
        var d = DataAt(position: .value(0))
        if first.hasPrefix("!") {
            d.isNegated = true
            first = first.dropFirst()
        }
        d.position = try checked(try names.amount(first))
        for word in w.dropFirst() {
            switch word {
            case "relative": d.isRelative = true
            case "rawbytes": break
            default: throw Failure("rule-option-unsupported", "isdataat with '\(word)' is not supported")
            }
        }
        return d
    }

    static func base64(_ value: String?) throws(Failure) -> Base64Decode {
        var b = Base64Decode()
        for word in words(value ?? "") where !word.isEmpty {
            if word == "relative" {
                b.isRelative = true
            } else if word.hasPrefix("offset "), let n = integer(word.dropFirst(7)), (0...65535).contains(n) {
                b.offset = n
            } else if word.hasPrefix("bytes "), let n = integer(word.dropFirst(6)), (1...65535).contains(n) {
                b.count = n
            } else {
                throw Failure("rule-option-unsupported", "base64_decode with '\(word)' is not supported")
            }
        }
        return b
    }

    /// `"/expression/flags"`; the letter flags that name a buffer are returned apart.
    static func pattern(_ value: String) throws(Failure) -> (pattern: Pattern, buffer: Buffer?) {
        let (negated, body) = SuricataText.unquoted(value)
        guard body.first == "/", let end = body.lastIndex(of: "/"), end > body.startIndex else {
            throw Failure("rule-malformed", "an expression stands between slashes")
        }
        var p = Pattern(source: String(body[body.index(after: body.startIndex)..<end]), isNegated: negated)
        var buffer: Buffer?
        let tail = body[body.index(after: end)...]
        guard !tail.contains(",") else {
            throw Failure("rule-option-unsupported", "values captured by an expression are not supported")
        }
        for flag in tail {
            switch flag {
            case "i": p.ignoresCase = true
            case "s": p.dotMatchesNewline = true
            case "m": p.isMultiline = true
            case "x": p.isExtended = true
            case "A": p.isAnchored = true
            case "E": p.isDollarEndOnly = true
            case "G": p.isUngreedy = true
            case "R": p.isRelative = true
            case "B", "O": break
            case "U": buffer = .httpURI
            case "I": buffer = .httpURIRaw
            case "P": buffer = .httpRequestBody
            case "Q": buffer = .httpResponseBody
            case "H": buffer = .httpHeader
            case "D": buffer = .httpHeaderRaw
            case "M": buffer = .httpMethod
            case "C": buffer = .httpCookie
            case "S": buffer = .httpStatusCode
            case "Y": buffer = .httpStatusMessage
            case "V": buffer = .httpUserAgent
            case "W": buffer = .httpHost
            case "Z": buffer = .httpHostRaw
            default: throw Failure("rule-option-unsupported", "the flag '\(flag)' of an expression is not supported")
            }
        }
        return (p, buffer)
    }

    static func flowBit(_ value: String) throws(Failure) -> FlowBit? {
        let w = words(value)
        if w[0] == "noalert" { return nil }
        guard w.count == 2, let op = FlowBit.Operation(rawValue: String(w[0])), !w[1].isEmpty else {
            throw Failure("rule-malformed", "flowbits takes an operation and a name")
        }
        let names = w[1].split(separator: "|").map { String($0.trimmed) }
        guard names.count == 1 || op == .isset || op == .isnotset else {
            throw Failure("rule-malformed", "only isset and isnotset take several names")
        }
        return FlowBit(operation: op, names: names)
    }

    static func hostBit(_ value: String) throws(Failure) -> HostBit {
        let w = words(value)
        guard w.count >= 3, let op = FlowBit.Operation(rawValue: String(w[0])) else {
            throw Failure("rule-malformed", "xbits takes an operation, a name and what it is tracked by")
        }
        var track: HostBit.Track?
        var expire = 30
        for word in w.dropFirst(2) {
            if word.hasPrefix("track ") {
                track = HostBit.Track(rawValue: String(word.dropFirst(6).trimmed))
            } else if word.hasPrefix("expire "), let n = integer(word.dropFirst(7)), n > 0 {
                expire = n
            } else {
                throw Failure("rule-option-unsupported", "xbits with '\(word)' is not supported")
            }
        }
        guard let track else { throw Failure("rule-option-unsupported", "xbits is tracked by ip_src, ip_dst or ip_pair") }
        return HostBit(operation: op, name: String(w[1]), track: track, expire: expire)
    }

    static func threshold(_ value: String) throws(Failure) -> Threshold {
        var kind: Threshold.Kind?
        var track: Threshold.Track?
        var t = Threshold(kind: .limit, track: .source, count: 0)
        for word in words(value) {
            let p = word.split(separator: " ").map(\.trimmed)
            guard p.count == 2 else { throw Failure("rule-malformed", "threshold with '\(word)'") }
            switch p[0] {
            case "type": kind = Threshold.Kind(rawValue: String(p[1]))
            case "track": track = Threshold.Track(rawValue: String(p[1]))
            case "count": t.count = integer(p[1]) ?? 0
            case "seconds": t.seconds = integer(p[1]) ?? 0
            case "multiplier": t.multiplier = integer(p[1]) ?? 0
            default: throw Failure("rule-option-unsupported", "threshold with '\(word)' is not supported")
            }
        }
        guard let kind, let track, t.count > 0, kind == .backoff ? t.multiplier > 0 : t.seconds > 0 else {
            throw Failure("rule-option-unsupported", "threshold needs a known type and track, a count and seconds")
        }
        t.kind = kind
        t.track = track
        return t
    }

    static func streamSize(_ value: String) throws(Failure) -> StreamSize {
        let w = words(value)
        guard w.count == 3, let side = StreamSize.Side(rawValue: String(w[0])) else {
            throw Failure("rule-malformed", "stream_size takes a side, a comparison and a size")
        }
        let op = w[1] == "=" ? "" : w[1] == "!=" ? "!" : String(w[1])
        return StreamSize(side: side, test: try size(op + w[2]))
    }

    static func tcpFlags(_ value: String) throws(Failure) -> TCPFlags {
        let w = words(value)
        func bits(_ s: Substring) throws(Failure) -> UInt8 {
            var out: UInt8 = 0
            for c in s {
                switch c {
                case "F": out |= 1
                case "S": out |= 2
                case "R": out |= 4
                case "P": out |= 8
                case "A": out |= 16
                case "U": out |= 32
                case "E", "2": out |= 64
                case "C", "1": out |= 128
                case "0": break
                default: throw Failure("rule-malformed", "'\(c)' is no TCP flag")
                }
            }
            return out
        }
        var s = w[0]
        var kind = TCPFlags.Kind.exact
        if let c = s.first, "+*!".contains(c) {
            kind = c == "+" ? .all : c == "*" ? .any : .none
            s = s.dropFirst()
        } else if let c = s.last, "+*".contains(c) {
            kind = c == "+" ? .all : .any
            s = s.dropLast()
        }
        return TCPFlags(kind: kind, bits: try bits(s), ignored: w.count > 1 ? try bits(w[1]) : 0)
    }
}
