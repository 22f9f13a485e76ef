// Which pages of a process hold anything, by /proc/PID/pagemap: what was never touched need not be read, and reading it
// would cost the process page tables.

import ELF
import Glibc

public struct PresentPages {
    private static let page: UInt64 = 4096
    /// Pages asked about at a time.
    private static let chunk = 64 << 10
    private static let present: UInt8 = 0x80, swapped: UInt8 = 0x40

    private let file: Descriptor?

    public init(of process: ProcessHandle) {
        let thread = (try? process.livingThread())?.value ?? process.id.value
        file = try? Descriptor(opening: "task/\(thread)/pagemap", in: process.directory)
    }

    /// The parts of page-aligned `range` that are in memory or swapped out; all of it where the kernel does not tell.
    public func parts(of range: Range<RuntimeAddress>) -> [Range<RuntimeAddress>] {
        guard let file else { return [range] }
        var result: [Range<RuntimeAddress>] = []
        var at = range.lowerBound.value / Self.page
        let end = (range.upperBound.value &+ (Self.page - 1)) / Self.page
        while at < end {
            let count = min(Int(end - at), Self.chunk)
            guard let entries = try? file.read(at: at * 8, count: count * 8), entries.count == count * 8 else { return [range] }
            for i in 0..<count where entries[i * 8 + 7] & (Self.present | Self.swapped) != 0 {
                let start = max(RuntimeAddress((at + UInt64(i)) * Self.page), range.lowerBound)
                let stop = min(RuntimeAddress((at + UInt64(i) + 1) * Self.page), range.upperBound)
                if let last = result.last, last.upperBound == start {
                    result[result.count - 1] = last.lowerBound..<stop
                } else {
                    result.append(start..<stop)
                }
            }
            at += UInt64(count)
        }
        return result
    }
}
