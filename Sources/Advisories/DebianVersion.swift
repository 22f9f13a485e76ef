// Debian package versions and their order, as deb-version(7) defines it and dpkg computes it.

/// `[epoch:]upstream[-revision]`. Two spellings that dpkg calls equal (`1.0` and `0:1.0-0`) are equal here too.
public struct DebianVersion: Sendable, Hashable, Comparable, CustomStringConvertible {
    /// Longer version strings are refused.
    public static let bytesMax = 1024

    public let epoch: UInt32
    public let upstream: String
    /// Empty when the version has no revision (a native package).
    public let revision: String
    /// As it was written.
    public let description: String

    /// Nil when the text is not a version: empty parts, a bad epoch, or characters a version cannot hold.
    public init?(_ text: String) {
        guard text.utf8.count <= Self.bytesMax else { return nil }
        var rest = Substring(text)
        var epoch: UInt32 = 0
        if let colon = rest.firstIndex(of: ":") {
            guard let number = UInt32(rest[..<colon]), number <= Int32.max, !rest.hasPrefix("+") else { return nil }
            epoch = number
            rest = rest[rest.index(after: colon)...]
        }
        var revision = Substring()
        if let hyphen = rest.lastIndex(of: "-") {
            revision = rest[rest.index(after: hyphen)...]
            rest = rest[..<hyphen]
            guard !revision.isEmpty else { return nil }
        }
        guard !rest.isEmpty, rest.utf8.allSatisfy(Self.isUpstreamByte) else { return nil }
        guard revision.utf8.allSatisfy({ Self.isUpstreamByte($0) && $0 != UInt8(ascii: ":") }) else { return nil }
        self.epoch = epoch
        self.upstream = String(rest)
        self.revision = String(revision)
        self.description = text
    }

    public static func == (a: Self, b: Self) -> Bool { order(a, b) == 0 }
    public static func < (a: Self, b: Self) -> Bool { order(a, b) < 0 }

    /// Equal versions may be spelled differently, so only what all spellings share is hashed.
    public func hash(into hasher: inout Hasher) { hasher.combine(epoch) }

    private static func order(_ a: Self, _ b: Self) -> Int {
        if a.epoch != b.epoch { return a.epoch < b.epoch ? -1 : 1 }
        let upstream = orderOfPart(Array(a.upstream.utf8), Array(b.upstream.utf8))
        return upstream != 0 ? upstream : orderOfPart(Array(a.revision.utf8), Array(b.revision.utf8))
    }

    /// dpkg's `verrevcmp`: runs of non-digits by a modified ASCII order (`~` before the end, letters before the rest),
    /// then runs of digits by value, in turn.
    private static func orderOfPart(_ a: [UInt8], _ b: [UInt8]) -> Int {
        var i = 0
        var j = 0
        while i < a.count || j < b.count {
            while (i < a.count && !isDigit(a[i])) || (j < b.count && !isDigit(b[j])) {
                let x = i < a.count ? weight(a[i]) : 0
                let y = j < b.count ? weight(b[j]) : 0
                if x != y { return x < y ? -1 : 1 }
                i += 1
                j += 1
            }
            while i < a.count, a[i] == UInt8(ascii: "0") { i += 1 }
            while j < b.count, b[j] == UInt8(ascii: "0") { j += 1 }
            var firstDifference = 0
            while i < a.count, j < b.count, isDigit(a[i]), isDigit(b[j]) {
                if firstDifference == 0 { firstDifference = Int(a[i]) - Int(b[j]) }
                i += 1
                j += 1
            }
            // The longer run of digits is the larger number, whatever its digits are.
            if i < a.count, isDigit(a[i]) { return 1 }
            if j < b.count, isDigit(b[j]) { return -1 }
            if firstDifference != 0 { return firstDifference < 0 ? -1 : 1 }
        }
        return 0
    }

    private static func weight(_ c: UInt8) -> Int {
        switch c {
        case UInt8(ascii: "~"): -1
        case UInt8(ascii: "0")...UInt8(ascii: "9"): 0
        case UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "a")...UInt8(ascii: "z"): Int(c)
        default: Int(c) + 256
        }
    }

    private static func isDigit(_ c: UInt8) -> Bool { c >= UInt8(ascii: "0") && c <= UInt8(ascii: "9") }

    private static func isUpstreamByte(_ c: UInt8) -> Bool {
        switch c {
        case UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
            UInt8(ascii: "a")...UInt8(ascii: "z"):
            true
        case UInt8(ascii: "."), UInt8(ascii: "+"), UInt8(ascii: "-"), UInt8(ascii: "~"), UInt8(ascii: ":"): true
        default: false
        }
    }
}
