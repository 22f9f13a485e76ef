// The look-up that decides whether a thread is in the way, against the plain definition.

import ELF
import Testing

@testable import LivePatchApplier

@Suite struct GuardedRangesTests {
    @Test("ranges that overlap, nest and touch hide nothing of each other", arguments: 0..<50)
    func overlapping(seed: Int) {
        var random = SystemRandomNumberGenerator()
        let ranges = (0..<Int.random(in: 1...12, using: &random)).map { i in
            let start = UInt64.random(in: 100...160, using: &random), length = UInt64.random(in: 0...30, using: &random)
            return (range: RuntimeAddress(start)..<RuntimeAddress(start + length), name: "f\(i)")
        }
        let guarded = GuardedRanges(ranges)
        for address in UInt64(90)...200 {
            let isInside = ranges.contains { $0.range.contains(RuntimeAddress(address)) }
            // Behind a call that is the last instruction, and never at the first.
            let returns = ranges.contains {
                !$0.range.isEmpty && address > $0.range.lowerBound.value && address <= $0.range.upperBound.value
            }
            #expect((guarded.name(at: address, asReturn: false) != nil) == isInside, "\(ranges) at \(address)")
            #expect(guarded.returnsInto(address) == returns, "\(ranges) at \(address)")
        }
    }
}
