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
        buffer = [UInt64](repeating: 0, count: 64 << 10)
    }

    /// The first aligned word in `range` that lies within `bounds` and satisfies `test`. Words outside `bounds` cost one
    /// comparison. The whole range is read, by process_vm_readv, before the first word is looked at.
    public func first(in range: Range<RuntimeAddress>, between bounds: ClosedRange<UInt64>, where test: (UInt64) -> Bool) -> Answer {
        let count = (range.upperBound - range.lowerBound) / 8
        self.count = 0
        start = range.lowerBound.value
        if count > buffer.count { buffer = [UInt64](repeating: 0, count: count) }
        let low = bounds.lowerBound, span = bounds.upperBound - bounds.lowerBound
        return unsafe buffer.withUnsafeMutableBufferPointer { words in
            let n = unsafe fother_process_read(thread.value, range.lowerBound.value, words.baseAddress, count * 8)
            guard n == Int64(count * 8) else { return .unreadable }
            self.count = count
            // Eight words a step, without a branch for each: hits are rare.
            var i = 0
            while i + 8 <= count {
                var hits = 0
                for k in 0..<8 { unsafe hits |= words[i + k] &- low <= span ? 1 : 0 }
                if hits != 0 {
                    for k in 0..<8 where unsafe words[i + k] &- low <= span && test(words[i + k]) { return unsafe .found(words[i + k]) }
                }
                i += 8
            }
            while i < count {
                let word = unsafe words[i]
                if word &- low <= span, test(word) { return .found(word) }
                i += 1
            }
            return .none
        }
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
        while i < count {
            let word = buffer[i]
            if word &- low <= span, test(word) { return word }
            i += 1
        }
        return nil
    }
}
