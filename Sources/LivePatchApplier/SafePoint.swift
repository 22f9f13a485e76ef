// Finds the moment when no thread is inside, or will return into, code that is about to change. Everything that can be
// computed before the stop is in here before the stop.

import ELF
import LivePatch
import ProcessControl

/// Who is in the way.
public struct BlockingThread: Sendable, Equatable {
    public var thread: ThreadID
    public var function: String
    /// The instruction pointer itself is there; otherwise a word on the stack says that the thread may return there.
    public var isExecuting: Bool
}

/// Address ranges that must be quiet, ready for a fast look-up.
struct GuardedRanges: Sendable {
    /// Stacks with more live bytes than this are not scanned, and their thread counts as blocking.
    static let stackMax = 16 << 20

    /// Sorted by start, not overlapping.
    private let starts: [UInt64]
    private let ends: [UInt64]
    private let names: [String]
    private let low: UInt64
    private let high: UInt64

    init(_ ranges: [(range: Range<RuntimeAddress>, name: String)]) {
        let sorted = ranges.sorted { $0.range.lowerBound < $1.range.lowerBound }
        starts = sorted.map { $0.range.lowerBound.value }
        ends = sorted.map { $0.range.upperBound.value }
        names = sorted.map(\.name)
        low = starts.first ?? 0
        high = ends.max() ?? 0
    }

    /// The function that holds `address`. A return address may be one past the end: the last instruction can be a call.
    func name(at address: UInt64, asReturn: Bool) -> String? {
        guard address >= low, address <= high, !starts.isEmpty else { return nil }
        var a = 0, b = starts.count
        while a < b {
            let middle = (a + b) / 2
            if starts[middle] <= address { a = middle + 1 } else { b = middle }
        }
        if a > 0, address < ends[a - 1], !asReturn || address > starts[a - 1] { return names[a - 1] }
        if asReturn {
            if a > 0, address == ends[a - 1] { return names[a - 1] }
            if a > 1, address == starts[a - 1], address == ends[a - 2] { return names[a - 2] }
        }
        return nil
    }

    /// The first little-endian word of `stack` (from its 8-byte-aligned beginning) that points into a range.
    func firstHit(in stack: [UInt8]) -> String? {
        var at = 0
        while at + 8 <= stack.count {
            // The two top bytes of a user address are zero: most words are told by one comparison.
            if stack[at + 7] == 0, stack[at + 6] == 0 {
                var word: UInt64 = 0
                for k in stride(from: 5, through: 0, by: -1) { word = word << 8 | UInt64(stack[at + k]) }
                if word >= low, word <= high, let name = name(at: word, asReturn: true) { return name }
            }
            at += 8
        }
        return nil
    }
}

enum SafePoint {
    /// Threads that are in a guarded range or may return into one. All threads of the process stand still.
    static func blocking(_ stopped: borrowing StoppedProcess, _ guarded: GuardedRanges, _ target: Target) -> [BlockingThread] {
        var result: [BlockingThread] = []
        for thread in stopped.threads {
            if let name = guarded.name(at: thread.instructionPointer.value, asReturn: false) {
                result.append(BlockingThread(thread: thread.id, function: name, isExecuting: true))
                continue
            }
            for stack in target.stacks(of: thread) {
                guard let range = stack else {
                    result.append(BlockingThread(thread: thread.id, function: "a stack that cannot be read", isExecuting: false))
                    break
                }
                guard let bytes = try? target.memory.read(at: range.lowerBound, count: range.upperBound - range.lowerBound) else {
                    result.append(BlockingThread(thread: thread.id, function: "a stack that cannot be read", isExecuting: false))
                    break
                }
                if let name = guarded.firstHit(in: bytes) {
                    result.append(BlockingThread(thread: thread.id, function: name, isExecuting: false))
                    break
                }
            }
        }
        return result
    }
}

extension Target {
    /// The live parts of a thread's stacks: from its stack pointer to the end of that mapping and, when it stands on another
    /// than its natural one (a signal handler's, a coroutine's), all of the natural one. Nil stands for "cannot be told".
    func stacks(of thread: StoppedThread) -> [Range<RuntimeAddress>?] {
        let pointer = RuntimeAddress(thread.stackPointer.value & ~7)
        guard let here = maps.mapping(at: pointer), here.range.upperBound - pointer <= GuardedRanges.stackMax else { return [nil] }
        var result: [Range<RuntimeAddress>?] = [pointer..<here.range.upperBound]
        // The main thread's stack is named; the others' thread control block lies at the top of theirs.
        let isMain = thread.id.value == process.value
        let natural = isMain ? maps.first { $0.path == "[stack]" } : maps.mapping(at: thread.threadPointer)
        if let natural, natural.range != here.range, natural.permissions.contains(.write), natural.permissions.contains(.execute) == false {
            let size = natural.range.upperBound - natural.range.lowerBound
            result.append(size <= GuardedRanges.stackMax ? natural.range : nil)
        }
        return result
    }
}
