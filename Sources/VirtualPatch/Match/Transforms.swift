// What rules do to bytes before they look: case, percent encoding, base64, paths, counting.

enum Transforms {
    static func apply(_ transform: Transform, _ bytes: [UInt8]) -> [UInt8] {
        switch transform {
        case .lowercase: bytes.map(LiteralSearch.lower)
        case .uppercase: bytes.map { $0 &- 97 < 26 ? $0 & 0xdf : $0 }
        case .urlDecode: percentDecoded(bytes.span, plusIsSpace: true)
        case .base64Decode: base64(bytes.span)
        case .hexDecode: hex(bytes)
        case .trim: trimmed(bytes)
        case .normalizePath: normalizedPath(bytes)
        case .length: Array(String(bytes.count).utf8)
        case .count: bytes
        case .dotPrefix: [UInt8(ascii: ".")] + bytes
        case .stripWhitespace: bytes.filter { !isSpace($0) }
        case .compressWhitespace: compressed(bytes)
        }
    }

    /// Whether the outcome is the bytes themselves, so that nothing need be copied.
    static func changesNothing(_ transform: Transform, _ bytes: Span<UInt8>) -> Bool {
        switch transform {
        case .count: return true
        case .urlDecode: return !isEncoded(bytes, plusIsSpace: true)
        case .lowercase:
            for i in bytes.indices where bytes[i] &- 65 < 26 { return false }
            return true
        default: return false
        }
    }

    static func isSpace(_ c: UInt8) -> Bool { c == 32 || (c >= 9 && c <= 13) }

    /// `%XX` decoded, what is no escape left as it is.
    static func percentDecoded(_ bytes: Span<UInt8>, plusIsSpace: Bool) -> [UInt8] {
        var out: [UInt8] = []
        out.reserveCapacity(bytes.count)
        var i = 0
        while i < bytes.count {
            let c = bytes[i]
            if c == UInt8(ascii: "%"), i + 2 < bytes.count, let h = SuricataText.hexDigit(bytes[i + 1]),
                let l = SuricataText.hexDigit(bytes[i + 2])
            {
                out.append(h << 4 | l)
                i += 3
            } else {
                out.append(c == UInt8(ascii: "+") && plusIsSpace ? 32 : c)
                i += 1
            }
        }
        return out
    }

    static func isEncoded(_ bytes: Span<UInt8>, plusIsSpace: Bool) -> Bool {
        for i in bytes.indices {
            let c = bytes[i]
            if c == UInt8(ascii: "%") || (plusIsSpace && c == UInt8(ascii: "+")) { return true }
        }
        return false
    }

    /// Spaces and line ends are skipped; the first other byte that is no base64 ends it.
    static func base64(_ bytes: Span<UInt8>) -> [UInt8] {
        var out: [UInt8] = []
        var bits: UInt32 = 0
        var have = 0
        for i in bytes.indices {
            let c = bytes[i]
            let v: UInt32
            switch c {
            case 65...90: v = UInt32(c) - 65
            case 97...122: v = UInt32(c) - 71
            case 48...57: v = UInt32(c) + 4
            case UInt8(ascii: "+"), UInt8(ascii: "-"): v = 62
            case UInt8(ascii: "/"), UInt8(ascii: "_"): v = 63
            case 32, 9, 10, 13: continue
            default: return out
            }
            bits = bits << 6 | v
            have += 6
            if have >= 8 {
                have -= 8
                out.append(UInt8(truncatingIfNeeded: bits >> UInt32(have)))
            }
        }
        return out
    }

    private static func hex(_ bytes: [UInt8]) -> [UInt8] {
        var out: [UInt8] = []
        var high: UInt8?
        for c in bytes {
            guard let d = SuricataText.hexDigit(c) else { break }
            if let h = high {
                out.append(h << 4 | d)
                high = nil
            } else {
                high = d
            }
        }
        return out
    }

    private static func trimmed(_ bytes: [UInt8]) -> [UInt8] {
        var s = bytes[...]
        while let c = s.first, isSpace(c) { s.removeFirst() }
        while let c = s.last, isSpace(c) { s.removeLast() }
        return Array(s)
    }

    private static func compressed(_ bytes: [UInt8]) -> [UInt8] {
        var out: [UInt8] = []
        var wasSpace = false
        for c in bytes {
            let space = isSpace(c)
            if !space || !wasSpace { out.append(space ? 32 : c) }
            wasSpace = space
        }
        return out
    }

    /// `.` and `..` resolved, separators merged.
    static func normalizedPath(_ bytes: [UInt8]) -> [UInt8] {
        let slash = UInt8(ascii: "/"), dot = UInt8(ascii: ".")
        var parts: [ArraySlice<UInt8>] = []
        let isAbsolute = bytes.first == slash
        for part in bytes.split(separator: slash) {
            if part.elementsEqual([dot]) { continue }
            if part.elementsEqual([dot, dot]) {
                if let last = parts.last, !last.elementsEqual([dot, dot]) {
                    parts.removeLast()
                } else if !isAbsolute {
                    parts.append(part)
                }
            } else {
                parts.append(part)
            }
        }
        var out: [UInt8] = isAbsolute ? [slash] : []
        for (i, part) in parts.enumerated() {
            if i > 0 { out.append(slash) }
            out += part
        }
        if let last = bytes.last, last == slash, out.last != slash, !parts.isEmpty { out.append(slash) }
        return out
    }
}
