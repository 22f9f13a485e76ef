// The identity of an ELF object: the NT_GNU_BUILD_ID note.

/// The bytes of an `NT_GNU_BUILD_ID` note; printed as lower-case hexadecimal, two digits a byte.
public struct BuildID: Hashable, Sendable, CustomStringConvertible {
    /// Longer descriptors are refused: linkers write 8 to 32 bytes.
    public static let bytesMax = 64
    public let bytes: [UInt8]

    /// Nil when empty or longer than `bytesMax`.
    public init?(bytes: [UInt8]) {
        guard !bytes.isEmpty, bytes.count <= Self.bytesMax else { return nil }
        self.bytes = bytes
    }

    /// Parses hexadecimal digits, an even number of them.
    public init?(_ text: String) {
        let digits = text.utf8.map { UInt8($0) }
        guard digits.count % 2 == 0 else { return nil }
        var bytes: [UInt8] = []
        for i in stride(from: 0, to: digits.count, by: 2) {
            guard let high = hexValue(digits[i]), let low = hexValue(digits[i + 1]) else { return nil }
            bytes.append(high << 4 | low)
        }
        self.init(bytes: bytes)
    }

    public var description: String { hexDigits(bytes) }
    /// The first eight digits: enough for a table, never for a decision.
    public var short: String { String(description.prefix(8)) }
}

/// Two lower-case hexadecimal digits for each byte, without a prefix.
public func hexDigits(_ bytes: some Sequence<UInt8>) -> String {
    let digits = Array("0123456789abcdef".utf8)
    var out: [UInt8] = []
    for b in bytes {
        out.append(digits[Int(b >> 4)])
        out.append(digits[Int(b & 15)])
    }
    return String(decoding: out, as: UTF8.self)
}

private func hexValue(_ c: UInt8) -> UInt8? {
    switch c {
    case UInt8(ascii: "0")...UInt8(ascii: "9"): c - UInt8(ascii: "0")
    case UInt8(ascii: "a")...UInt8(ascii: "f"): c - UInt8(ascii: "a") + 10
    case UInt8(ascii: "A")...UInt8(ascii: "F"): c - UInt8(ascii: "A") + 10
    default: nil
    }
}
