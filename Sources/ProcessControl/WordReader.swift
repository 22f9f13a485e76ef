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

    private let process: ProcessID
    private var buffer: [UInt64]

    public init(_ process: ProcessID) {
        self.process = process
        buffer = [UInt64](repeating: 0, count: 64 << 10)
    }

    /// The first aligned word in `range` that lies within `bounds` and satisfies `test`. Words outside `bounds` cost one
    /// comparison. The whole range is read, by process_vm_readv, before the first word is looked at.
    public func first(in range: Range<RuntimeAddress>, between bounds: ClosedRange<UInt64>, where test: (UInt64) -> Bool) -> Answer {
        let count = (range.upperBound - range.lowerBound) / 8
        if count > buffer.count { buffer = [UInt64](repeating: 0, count: count) }
        let low = bounds.lowerBound, span = bounds.upperBound - bounds.lowerBound
        return unsafe buffer.withUnsafeMutableBufferPointer { words in
            let n = unsafe fother_process_read(process.value, range.lowerBound.value, words.baseAddress, count * 8)
            guard n == Int64(count * 8) else { return .unreadable }
            for i in 0..<count {
                let word = unsafe words[i]
                if word &- low <= span, test(word) { return .found(word) }
            }
            return .none
        }
    }
}
