// Parameters of requests: query strings and form bodies, JSON and multipart bodies. Names and values, decoded.

/// One parameter; `fileName` for parts of multipart bodies that are files.
struct Argument: Equatable {
    var name: [UInt8]
    var value: [UInt8]
    var fileName: [UInt8]?
}

/// What could not be read is told apart: a body that is no JSON has no parameters, one beyond a limit is not inspected.
struct Arguments {
    static let countLimit = 2048
    static let depthLimit = 64

    var items: [Argument] = []
    /// More parameters or deeper nesting than is read.
    var isOverLimit = false

    private mutating func add(_ name: [UInt8], _ value: [UInt8], fileName: [UInt8]? = nil) {
        guard items.count < Self.countLimit else {
            isOverLimit = true
            return
        }
        items.append(Argument(name: name, value: value, fileName: fileName))
    }

    /// `a=1&b=2`, decoded once.
    static func form(_ bytes: Span<UInt8>) -> Arguments {
        var out = Arguments()
        var start = 0
        while start < bytes.count {
            var end = start
            var equals: Int?
            while end < bytes.count, bytes[end] != UInt8(ascii: "&") {
                if equals == nil, bytes[end] == UInt8(ascii: "=") { equals = end }
                end += 1
            }
            if end > start {
                let name = bytes.extracting(start..<(equals ?? end))
                let value = bytes.extracting((equals.map { $0 + 1 } ?? end)..<end)
                out.add(
                    Transforms.percentDecoded(name, plusIsSpace: true), Transforms.percentDecoded(value, plusIsSpace: true))
            }
            start = end + 1
        }
        return out
    }

    /// Members of JSON by their paths: `json.a.b`, `json.a.0`.
    static func json(_ bytes: Span<UInt8>) -> Arguments {
        var out = Arguments()
        // Servers pass over a mark of the byte order.
        let mark = LiteralSearch.stands([0xef, 0xbb, 0xbf], in: bytes, at: 0, ignoresCase: false) ? 3 : 0
        var reader = JSONReader(bytes.extracting(mark..<bytes.count))
        reader.value(Array("json".utf8), 0, &out)
        return out
    }

    private struct JSONReader {
        let bytes: [UInt8]
        var i = 0
        var failed = false

        init(_ bytes: Span<UInt8>) { self.bytes = bytes.copied }

        private var byte: UInt8? { i < bytes.count ? bytes[i] : nil }

        private mutating func skip() { while let c = byte, Transforms.isSpace(c) { i += 1 } }

        mutating func value(_ path: [UInt8], _ depth: Int, _ out: inout Arguments) {
            skip()
            guard depth < Arguments.depthLimit else {
                out.isOverLimit = true
                failed = true
                return
            }
            switch byte {
            case UInt8(ascii: "{"): members(path, depth, &out)
            case UInt8(ascii: "["): elements(path, depth, &out)
            case UInt8(ascii: "\""): out.add(path, string())
            case nil: failed = true
            default:
                let start = i
                while let c = byte, c != UInt8(ascii: ","), c != UInt8(ascii: "}"), c != UInt8(ascii: "]"), !Transforms.isSpace(c) {
                    i += 1
                }
                if i == start { failed = true } else { out.add(path, Array(bytes[start..<i])) }
            }
        }

        private mutating func members(_ path: [UInt8], _ depth: Int, _ out: inout Arguments) {
            i += 1
            while !failed {
                skip()
                if byte == UInt8(ascii: "}") {
                    i += 1
                    return
                }
                guard byte == UInt8(ascii: "\"") else { break }
                let name = string()
                skip()
                guard byte == UInt8(ascii: ":") else { break }
                i += 1
                value(path + [UInt8(ascii: ".")] + name, depth + 1, &out)
                skip()
                if byte == UInt8(ascii: ",") { i += 1 } else if byte != UInt8(ascii: "}") { break }
            }
            failed = true
        }

        private mutating func elements(_ path: [UInt8], _ depth: Int, _ out: inout Arguments) {
            i += 1
            var n = 0
            while !failed {
                skip()
                if byte == UInt8(ascii: "]") {
                    i += 1
                    return
                }
                value(path + Array(".\(n)".utf8), depth + 1, &out)
                n += 1
                skip()
                if byte == UInt8(ascii: ",") { i += 1 } else if byte != UInt8(ascii: "]") { break }
            }
            failed = true
        }

        private mutating func string() -> [UInt8] {
            var out: [UInt8] = []
            i += 1
            while let c = byte {
                i += 1
                if c == UInt8(ascii: "\"") { return out }
                guard c == UInt8(ascii: "\\"), let e = byte else {
                    out.append(c)
                    continue
                }
                i += 1
                switch e {
                case UInt8(ascii: "n"): out.append(10)
                case UInt8(ascii: "t"): out.append(9)
                case UInt8(ascii: "r"): out.append(13)
                case UInt8(ascii: "b"): out.append(8)
                case UInt8(ascii: "f"): out.append(12)
                case UInt8(ascii: "u"):
                    var scalar = unit()
                    if scalar & 0xfc00 == 0xd800, i + 1 < bytes.count, bytes[i] == UInt8(ascii: "\\"), bytes[i + 1] == UInt8(ascii: "u") {
                        i += 2
                        let low = unit()
                        scalar = 0x10000 + (scalar & 0x3ff) << 10 + low & 0x3ff
                    }
                    out += Array(String(UnicodeScalar(scalar) ?? "\u{fffd}").utf8)
                default: out.append(e)
                }
            }
            failed = true
            return out
        }

        private mutating func unit() -> UInt32 {
            var v: UInt32 = 0
            var n = 0
            while n < 4, let c = byte, let d = SuricataText.hexDigit(c) {
                v = v << 4 | UInt32(d)
                i += 1
                n += 1
            }
            return v
        }
    }

    /// Parts between boundaries. `contentType` is the header's value with its `boundary=`.
    static func multipart(_ bytes: Span<UInt8>, contentType: [UInt8]) -> Arguments {
        var out = Arguments()
        guard let boundary = parameter("boundary", in: contentType), !boundary.isEmpty, boundary.count <= 256 else { return out }
        let mark = [UInt8(ascii: "-"), UInt8(ascii: "-")] + boundary
        var at = LiteralSearch.find(mark, in: bytes, from: 0, to: bytes.count, ignoresCase: false)
        while let start = at {
            let head = start + mark.count
            let next = LiteralSearch.find(mark, in: bytes, from: head, to: bytes.count, ignoresCase: false)
            part(bytes.extracting(head..<(next ?? bytes.count)), &out)
            at = next
        }
        return out
    }

    private static func part(_ bytes: Span<UInt8>, _ out: inout Arguments) {
        var i = 0
        var disposition: [UInt8]?
        // The rest of the boundary's line, then headers up to an empty line.
        func line() -> Range<Int>? {
            guard i < bytes.count else { return nil }
            let start = i
            while i < bytes.count, bytes[i] != 10 { i += 1 }
            var end = i
            if end > start, bytes[end - 1] == 13 { end -= 1 }
            i += 1
            return start..<end
        }
        guard line() != nil else { return }
        let name = Array("content-disposition:".utf8)
        while let l = line() {
            if l.isEmpty { break }
            if LiteralSearch.stands(name, in: bytes, at: l.lowerBound, ignoresCase: true) {
                disposition = bytes.extracting((l.lowerBound + name.count)..<max(l.upperBound, l.lowerBound + name.count)).copied
            }
        }
        guard let disposition else { return }
        var end = bytes.count
        if end > i, bytes[end - 1] == 10 { end -= 1 }
        if end > i, bytes[end - 1] == 13 { end -= 1 }
        let value = i < end ? bytes.extracting(i..<end).copied : []
        let fileName = parameter("filename", in: disposition) ?? parameter("filename*", in: disposition).map(extended)
        out.add(parameter("name", in: disposition) ?? [], value, fileName: fileName)
    }

    /// `UTF-8''a%20name`, as RFC 5987 has it.
    private static func extended(_ value: [UInt8]) -> [UInt8] {
        let quotes = value.indices.filter { value[$0] == UInt8(ascii: "'") }
        let text = quotes.count >= 2 ? Array(value[(quotes[1] + 1)...]) : value
        return Transforms.percentDecoded(text.span, plusIsSpace: false)
    }

    /// `name=value` or `name="value"` behind a semicolon.
    static func parameter(_ name: String, in header: [UInt8]) -> [UInt8]? {
        let wanted = Array(name.utf8) + [UInt8(ascii: "=")]
        let bytes = header.span
        var from = 0
        while let hit = LiteralSearch.find(wanted, in: bytes, from: from, to: bytes.count, ignoresCase: true) {
            from = hit + 1
            if hit > 0, bytes[hit - 1] != UInt8(ascii: ";"), !Transforms.isSpace(bytes[hit - 1]) { continue }
            var i = hit + wanted.count
            var out: [UInt8] = []
            if i < bytes.count, bytes[i] == UInt8(ascii: "\"") {
                i += 1
                while i < bytes.count, bytes[i] != UInt8(ascii: "\"") {
                    if bytes[i] == UInt8(ascii: "\\"), i + 1 < bytes.count { i += 1 }
                    out.append(bytes[i])
                    i += 1
                }
            } else {
                while i < bytes.count, bytes[i] != UInt8(ascii: ";"), !Transforms.isSpace(bytes[i]) {
                    out.append(bytes[i])
                    i += 1
                }
            }
            return out
        }
        return nil
    }
}
