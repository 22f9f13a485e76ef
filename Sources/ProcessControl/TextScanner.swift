// A cursor over one line of a /proc file: bytes in, numbers and fields out, never out of bounds.

/// Reads forward through `bytes[position..<end]`. Every method returns nil, and may have moved, when the text is not
/// what it should be.
struct TextScanner {
    let bytes: [UInt8]
    var position: Int
    let end: Int

    init(_ bytes: [UInt8], _ range: Range<Int>) {
        self.bytes = bytes
        position = range.lowerBound
        end = range.upperBound
    }
    init(_ bytes: [UInt8]) { self.init(bytes, 0..<bytes.count) }

    var rest: ArraySlice<UInt8> { bytes[position..<end] }

    mutating func byte() -> UInt8? {
        guard position < end else { return nil }
        defer { position += 1 }
        return bytes[position]
    }

    mutating func skip(_ byte: UInt8) -> Bool { self.byte() == byte }

    mutating func skipBlanks() {
        while position < end, bytes[position] == UInt8(ascii: " ") || bytes[position] == UInt8(ascii: "\t") {
            position += 1
        }
    }

    mutating func hexadecimal() -> UInt64? {
        var value: UInt64 = 0
        var digits = 0
        while position < end, let digit = hexDigit(bytes[position]) {
            if digits == 16 { return nil }
            value = value << 4 | UInt64(digit)
            digits += 1
            position += 1
        }
        return digits > 0 ? value : nil
    }

    mutating func decimal() -> UInt64? {
        var value: UInt64 = 0
        let start = position
        while position < end, bytes[position] >= UInt8(ascii: "0"), bytes[position] <= UInt8(ascii: "9") {
            let (product, overflowed) = value.multipliedReportingOverflow(by: 10)
            let (sum, carried) = product.addingReportingOverflow(UInt64(bytes[position] - UInt8(ascii: "0")))
            if overflowed || carried { return nil }
            value = sum
            position += 1
        }
        return position > start ? value : nil
    }

    private func hexDigit(_ c: UInt8) -> UInt8? {
        switch c {
        case UInt8(ascii: "0")...UInt8(ascii: "9"): c &- UInt8(ascii: "0")
        case UInt8(ascii: "a")...UInt8(ascii: "f"): c &- UInt8(ascii: "a") &+ 10
        default: nil
        }
    }
}
