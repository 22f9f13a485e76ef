// CVE identifiers: one spelling, one order, and finding them in other people's text.

/// `CVE-2024-45490`. Ordered by year, then number.
public struct CVE: Sendable, Hashable, Comparable, CustomStringConvertible {
    public let year: Int
    public let number: Int

    /// Nil unless the whole text is one identifier, in any letter case.
    public init?(_ text: String) {
        let bytes = Array(text.utf8)
        guard let (cve, end) = Self.read(bytes, at: 0), end == bytes.count else { return nil }
        self = cve
    }

    private init(year: Int, number: Int) {
        self.year = year
        self.number = number
    }

    public static func < (a: CVE, b: CVE) -> Bool { (a.year, a.number) < (b.year, b.number) }

    /// At least four digits after the year, as the identifier syntax demands.
    public var description: String {
        let digits = String(number)
        return "CVE-\(year)-" + String(repeating: "0", count: max(0, 4 - digits.count)) + digits
    }

    /// Every identifier in `text`, each once, in ascending order.
    public static func named(in text: some RandomAccessCollection<UInt8>) -> [CVE] {
        let bytes = Array(text)
        var found: Set<CVE> = []
        var i = 0
        while i < bytes.count {
            if bytes[i] | 0x20 == UInt8(ascii: "c"), let (cve, end) = read(bytes, at: i) {
                found.insert(cve)
                i = end
            } else {
                i += 1
            }
        }
        return found.sorted()
    }

    /// Four digits of year, four to nine digits of number, and no tenth.
    private static func read(_ bytes: [UInt8], at start: Int) -> (CVE, end: Int)? {
        var i = start
        for c in "cve-".utf8 {
            guard i < bytes.count, bytes[i] | 0x20 == c | 0x20 else { return nil }
            i += 1
        }
        guard let (year, afterYear) = digits(bytes, at: i, atMost: 4), afterYear == i + 4, year >= 1999,
            afterYear < bytes.count, bytes[afterYear] == UInt8(ascii: "-"),
            let (number, end) = digits(bytes, at: afterYear + 1, atMost: 9), end - afterYear >= 5
        else { return nil }
        return (CVE(year: year, number: number), end)
    }

    private static func digits(_ bytes: [UInt8], at start: Int, atMost limit: Int) -> (Int, end: Int)? {
        var value = 0
        var i = start
        while i < bytes.count, bytes[i] >= UInt8(ascii: "0"), bytes[i] <= UInt8(ascii: "9") {
            guard i - start < limit else { return nil }
            value = value * 10 + Int(bytes[i] - UInt8(ascii: "0"))
            i += 1
        }
        return i > start ? (value, i) : nil
    }
}
