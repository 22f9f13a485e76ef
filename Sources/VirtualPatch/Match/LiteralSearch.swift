// Where a literal occurs in bytes: the C library's search where case counts, a loop of our own where it does not.

import CVectorscan

enum LiteralSearch {
    @inline(__always) static func lower(_ c: UInt8) -> UInt8 { c &- 65 < 26 ? c | 32 : c }

    /// The first place in `from..<to` where `needle` begins and, within it, ends.
    static func find(_ needle: [UInt8], in bytes: Span<UInt8>, from: Int, to: Int, ignoresCase: Bool) -> Int? {
        let n = needle.count
        guard from >= 0, to <= bytes.count, to - from >= n, n > 0 else { return nil }
        return unsafe bytes.withUnsafeBufferPointer { b -> Int? in
            guard let base = b.baseAddress else { return nil }
            return unsafe needle.withUnsafeBufferPointer { p -> Int? in
                guard let first = p.baseAddress else { return nil }
                if !ignoresCase {
                    guard let hit = unsafe cvectorscan_find(base + from, to - from, first, n) else { return nil }
                    return unsafe UnsafeRawPointer(hit) - UnsafeRawPointer(base)
                }
                let head = unsafe lower(first[0])
                var i = from
                let last = to - n
                while i <= last {
                    if unsafe lower(base[i]) == head {
                        var k = 1
                        while k < n, unsafe lower(base[i + k]) == lower(first[k]) { k += 1 }
                        if k == n { return i }
                    }
                    i += 1
                }
                return nil
            }
        }
    }

    /// Whether the bytes are this word, given in small letters, in any case.
    static func isWord(_ word: StaticString, _ bytes: Span<UInt8>) -> Bool {
        guard bytes.count == word.utf8CodeUnitCount else { return false }
        return word.withUTF8Buffer { wanted in
            for i in 0..<bytes.count { if unsafe lower(bytes[i]) != wanted[i] { return false } }
            return true
        }
    }

    /// Whether `needle` stands at `at`.
    static func stands(_ needle: [UInt8], in bytes: Span<UInt8>, at: Int, ignoresCase: Bool) -> Bool {
        at >= 0 && find(needle, in: bytes, from: at, to: min(at &+ needle.count, bytes.count), ignoresCase: ignoresCase) == at
    }
}
