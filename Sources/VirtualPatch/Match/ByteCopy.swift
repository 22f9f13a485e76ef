// Copies bytes from a span into an array in one piece, compares them so, and says where in memory a span is.

import Glibc

extension Array where Element == UInt8 {
    mutating func append(_ bytes: Span<UInt8>) {
        unsafe bytes.withUnsafeBufferPointer { unsafe append(contentsOf: $0) }
    }
}

extension Span where Element == UInt8 {
    var copied: [UInt8] {
        unsafe withUnsafeBufferPointer { unsafe Array($0) }
    }

    func holdsSame(as other: Span<UInt8>) -> Bool {
        guard count == other.count else { return false }
        return unsafe withUnsafeBufferPointer { a in
            unsafe other.withUnsafeBufferPointer { b in
                guard let first = a.baseAddress, let second = b.baseAddress else { return true }
                return unsafe memcmp(first, second, a.count) == 0
            }
        }
    }
}

/// Where bytes are in memory, to tell that they are a part of others. Never turned back into a pointer.
struct Place: Equatable {
    private let start: UInt
    private let end: UInt

    init(_ bytes: Span<UInt8>) {
        start = unsafe bytes.withUnsafeBufferPointer { UInt(bitPattern: $0.baseAddress) }
        end = start &+ UInt(bytes.count)
    }

    /// Whether the other bytes are a part of these.
    func holds(_ other: Place) -> Bool { start != 0 && other.start >= start && other.end <= end }
}
