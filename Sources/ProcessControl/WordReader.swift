// Reads memory of another process in bulk and looks at it word by word: what the search for return addresses needs to be
// fast enough while threads stand still.

import CLinux
import ELF

/// One reader, one buffer; not for use by two threads at once.
public final class WordReader {
    public enum Answer: Equatable {
        case none
        case found(UInt64)
        case unreadable
    }

    private let thread: ThreadID
    private var buffer: [UInt64]
    /// What the buffer holds: the range that was read last.
    private var start: UInt64 = 0
    private var count = 0

    public init(_ memory: ProcessMemory) {
        thread = memory.thread
        // What a stack mostly takes. More would only push what is needed out of the caches before a stop.
        buffer = [UInt64](repeating: 0, count: 16 << 10)
    }

    /// The first aligned word in `range` that lies within `bounds` and satisfies `test`. Words outside `bounds` cost one
    /// comparison. The whole range is read before the first word is looked at.
    public func first(in range: Range<RuntimeAddress>, between bounds: ClosedRange<UInt64>, where test: (UInt64) -> Bool) -> Answer {
        read(range) ? first(from: range.lowerBound.value, between: bounds, where: test).map { .found($0) } ?? .none : .unreadable
    }

    /// Reads all of `range` at once, by process_vm_readv; false when that is not possible.
    public func read(_ range: Range<RuntimeAddress>) -> Bool {
        let count = (range.upperBound - range.lowerBound) / 8
        self.count = 0
        start = range.lowerBound.value
        if count > buffer.count { buffer = [UInt64](repeating: 0, count: count) }
        let n = unsafe buffer.withUnsafeMutableBufferPointer {
            unsafe fother_process_read(thread.value, range.lowerBound.value, $0.baseAddress, count * 8)
        }
        guard n == Int64(count * 8) else { return false }
        self.count = count
        return true
    }

    /// The first word of what was read last that is a pointer as glibc scrambles it (`ror 17; xor`), unscrambled.
    public func firstUnscrambled(_ scramble: UInt64, between bounds: ClosedRange<UInt64>, where test: (UInt64) -> Bool) -> UInt64? {
        let low = bounds.lowerBound, span = bounds.upperBound - bounds.lowerBound
        return unsafe buffer.withUnsafeBufferPointer { words in
            for i in 0..<count {
                let word = unsafe (words[i] >> 17 | words[i] << 47) ^ scramble
                if word &- low <= span, test(word) { return word }
            }
            return nil
        }
    }

    /// The word at `address`, if it is aligned and in the range that was read last.
    public func word(at address: UInt64) -> UInt64? {
        guard address >= start, address & 7 == 0, (address - start) / 8 < UInt64(count) else { return nil }
        return buffer[Int((address - start) / 8)]
    }

    /// The first word from `address` on, in the range that was read last, that lies within `bounds` and satisfies `test`.
    public func first(from address: UInt64, between bounds: ClosedRange<UInt64>, where test: (UInt64) -> Bool) -> UInt64? {
        let low = bounds.lowerBound, span = bounds.upperBound - bounds.lowerBound
        var i = address <= start ? 0 : Int(min(UInt64(count), (address - start) / 8))
        while true {
            i = unsafe buffer.withUnsafeBufferPointer { unsafe Int(fother_first_between($0.baseAddress, i, count, low, span)) }
            guard i < count else { return nil }
            if test(buffer[i]) { return buffer[i] }
            i += 1
        }
    }
}

extension ProcessMemory {
    /// So many ranges can be read at once.
    static let atOnceMax = 64

    /// Several small ranges, by as few calls as possible. Failures as for one.
    public func read(_ ranges: [(address: RuntimeAddress, count: Int)]) throws(Failure) -> [[UInt8]] {
        var result: [[UInt8]] = []
        result.reserveCapacity(ranges.count)
        for first in stride(from: 0, to: ranges.count, by: Self.atOnceMax) {
            let some = ranges[first..<min(first + Self.atOnceMax, ranges.count)]
            let addresses = some.map(\.address.value), sizes = some.map { UInt64($0.count) }, total = some.reduce(0) { $0 + $1.count }
            var got: Int64 = 0
            let bytes = unsafe [UInt8](unsafeUninitializedCapacity: total) { buffer, used in
                got = unsafe fother_process_read_many(thread.value, addresses, sizes, sizes.count, buffer.baseAddress)
                used = got == Int64(total) ? total : 0
            }
            guard got == Int64(total) else {
                // Code that may be executed and not read, or something that is not there: one by one tells.
                for range in some { result.append(try read(at: range.address, count: range.count)) }
                continue
            }
            var at = 0
            for range in some {
                result.append(Array(bytes[at..<at + range.count]))
                at += range.count
            }
        }
        return result
    }
}
