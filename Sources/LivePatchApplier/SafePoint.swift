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
    /// The system call it waited in when it was stopped, or nil when it was doing something or that is not known.
    public var waitsIn: String?
    /// Where the stack of a suspended coroutine is; then `thread` is only its process.
    public var coroutineIn: String?
}

extension BlockingThread {
    init(_ thread: StoppedThread, _ function: String, isExecuting: Bool) {
        self.init(thread: thread.id, function: function, isExecuting: isExecuting)
        waitsIn = thread.waitsIn.map(SystemCallName.of)
    }
}

/// Address ranges that must be quiet, ready for a fast look-up.
struct GuardedRanges: Sendable {
    /// Stacks with more live bytes than this are not scanned, and their thread counts as blocking.
    static let stackMax = 16 << 20

    /// Sorted by start, not overlapping; the ranges given may overlap.
    private let starts: [UInt64]
    private let ends: [UInt64]
    private let names: [String]
    private let low: UInt64
    private let high: UInt64

    init(_ ranges: [(range: Range<RuntimeAddress>, name: String)]) {
        // Cut where they overlap, so that the range that begins last before an address is the one that can hold it.
        var pieces: [(start: UInt64, end: UInt64, name: String)] = []
        for r in ranges.sorted(by: { ($0.range.lowerBound, $1.range.upperBound) < ($1.range.lowerBound, $0.range.upperBound) }) {
            let start = max(r.range.lowerBound.value, pieces.last?.end ?? 0)
            if start < r.range.upperBound.value { pieces.append((start, r.range.upperBound.value, r.name)) }
        }
        starts = pieces.map(\.start)
        ends = pieces.map(\.end)
        names = pieces.map(\.name)
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

    /// The function that `address` lies in, behind its first byte: what a word anywhere in memory must do to be taken for a
    /// return address. Pointers to functions are everywhere, and nobody returns from a call that does not return.
    func name(behindStart address: UInt64) -> String? {
        guard address > low, address < high else { return nil }
        var a = 0, b = starts.count
        while a < b {
            let middle = (a + b) / 2
            if starts[middle] < address { a = middle + 1 } else { b = middle }
        }
        return a > 0 && address < ends[a - 1] ? names[a - 1] : nil
    }

    /// Whether a word on a stack means that a thread may return into a range.
    func returnsInto(_ word: UInt64) -> Bool { name(at: word, asReturn: true) != nil }

    /// All addresses lie between these, both included.
    var bounds: ClosedRange<UInt64> { low...max(low, high) }
}

/// What can be known of a process's stacks before it stops.
struct StackMap: Sendable {
    let maps: [Mapping]
    private let main: Range<RuntimeAddress>?
    private let process: ProcessID

    init(_ maps: [Mapping], of process: ProcessID) {
        self.maps = maps
        self.process = process
        main = maps.first { $0.path == "[stack]" }?.range
    }

    /// Whether it stands on another stack than it was born with: a signal handler's, a coroutine's.
    func isForeign(_ thread: StoppedThread) -> Bool {
        let natural = thread.id.value == process.value ? main : maps.mapping(at: thread.threadPointer)?.range
        return natural?.contains(thread.stackPointer) != true
    }

    /// The live part of a sleeping thread's stack where that is the one it was born with; nil where that cannot be told.
    func live(_ sleeper: SleepingThread) -> Range<RuntimeAddress>? {
        let pointer = RuntimeAddress(sleeper.stackPointer.value & ~7)
        guard let here = maps.mapping(at: pointer)?.range, here.upperBound - pointer <= GuardedRanges.stackMax else { return nil }
        let natural = sleeper.thread.value == process.value ? main : sleeper.robustList.flatMap { maps.mapping(at: $0)?.range }
        return natural == here ? pointer..<here.upperBound : nil
    }

    /// The live parts of a thread's stacks: from its stack pointer to the end of that mapping and, when it stands on another
    /// than its natural one (a signal handler's, a coroutine's), all of the natural one. Nil where that cannot be told.
    func live(_ thread: StoppedThread) -> [Range<RuntimeAddress>]? {
        let pointer = RuntimeAddress(thread.stackPointer.value & ~7)
        guard let here = maps.mapping(at: pointer)?.range, here.upperBound - pointer <= GuardedRanges.stackMax else { return nil }
        // The main thread's stack is named; the others' thread control block lies at the top of theirs.
        let natural = thread.id.value == process.value ? main : maps.mapping(at: thread.threadPointer)?.range
        guard let natural, natural != here else { return [pointer..<here.upperBound] }
        guard natural.upperBound - natural.lowerBound <= GuardedRanges.stackMax else { return nil }
        return [pointer..<here.upperBound, natural]
    }
}

enum SafePoint {
    /// Threads that are in a guarded range or may return into one. All threads of the process stand still.
    static func blocking(
        _ stopped: borrowing StoppedProcess, _ guarded: GuardedRanges, _ stacks: StackMap, _ words: WordReader, _ walker: StackWalker?
    ) -> [BlockingThread] {
        stopped.threads.compactMap { blocking($0, guarded, stacks, words, walker) }
    }

    /// What the thread blocks, if it does. It stands still; others may run on.
    static func blocking(
        _ thread: StoppedThread, _ guarded: GuardedRanges, _ stacks: StackMap, _ words: WordReader, _ walker: StackWalker?
    ) -> BlockingThread? {
        if let found = executing(thread, guarded) { return found }
        if thread.isKernelWorker { return nil }
        guard let ranges = stacks.live(thread) else { return BlockingThread(thread, unreadable, isExecuting: false) }
        for range in ranges {
            guard words.read(range) else { return BlockingThread(thread, unreadable, isExecuting: false) }
            if let found = returning(thread, range, guarded, words, walker) { return found }
        }
        return nil
    }

    /// Whether a thread sleeps outside of all guarded ranges and no word of its stack leads into one. It is not woken up for
    /// that; if not, only a stop can tell.
    static func sleepsOutside(
        _ thread: ThreadID, _ process: ProcessHandle, _ guarded: GuardedRanges, _ stacks: StackMap, _ words: WordReader
    ) -> Bool {
        guard let sleeper = process.sleeping(thread), guarded.name(at: sleeper.instructionPointer.value, asReturn: false) == nil,
            let range = stacks.live(sleeper), words.read(range),
            words.first(from: range.lowerBound.value, between: guarded.bounds, where: guarded.returnsInto) == nil
        else { return false }
        return process.stillSleeps(sleeper)
    }

    /// One thread at a time: the verdict is about the moment when it stood still, and reached when it runs again.
    static func blocking(
        _ thread: ThreadID, _ target: Target, _ guarded: GuardedRanges, _ stacks: StackMap, _ words: WordReader, _ walker: StackWalker,
        _ tracer: Tracer, within timeout: Duration
    ) throws -> BlockingThread? {
        enum Look {
            case judged(BlockingThread?)
            case read(StoppedThread, Range<RuntimeAddress>)
        }
        let look = try tracer.withStopped(thread, of: target.handle, timeout: timeout) { stopped -> Look in
            guard let thread = stopped.threads.first, !thread.isKernelWorker else { return .judged(nil) }
            guard let ranges = stacks.live(thread), ranges.count == 1, words.read(ranges[0]) else {
                return .judged(blocking(thread, guarded, stacks, words, walker))
            }
            return .read(thread, ranges[0])
        }.value
        switch look {
        case .judged(let found): return found
        case .read(let thread, let range):
            return executing(thread, guarded) ?? returning(thread, range, guarded, words, walker)
        }
    }

    private static func executing(_ thread: StoppedThread, _ guarded: GuardedRanges) -> BlockingThread? {
        if thread.isKernelWorker { return nil }
        return guarded.name(at: thread.instructionPointer.value, asReturn: false).map { BlockingThread(thread, $0, isExecuting: true) }
    }

    /// `words` holds `range`, a live part of its stacks.
    private static func returning(
        _ thread: StoppedThread, _ range: Range<RuntimeAddress>, _ guarded: GuardedRanges, _ words: WordReader, _ walker: StackWalker?
    ) -> BlockingThread? {
        let start = range.lowerBound.value
        guard var word = words.first(from: start, between: guarded.bounds, where: guarded.returnsInto) else { return nil }
        // Any word may be a return address; the unwind data can tell that none is.
        if let walker, start == thread.stackPointer.value & ~7 {
            guard let real = confirmed(walker.walk(thread, words), guarded, words) else { return nil }
            word = real
        }
        return BlockingThread(thread, guarded.name(at: word, asReturn: true) ?? "", isExecuting: false)
    }

    /// The first address in the walk that is in a guarded range; where the stack is not understood every word counts.
    private static func confirmed(_ walk: StackWalker.Walk, _ guarded: GuardedRanges, _ words: WordReader) -> UInt64? {
        if let hit = walk.returns.first(where: guarded.returnsInto) { return hit }
        if let hit = walk.interrupted.first(where: { guarded.name(at: $0, asReturn: false) != nil }) { return hit }
        return walk.unknownFrom.flatMap { words.first(from: $0, between: guarded.bounds, where: guarded.returnsInto) }
    }

    private static let unreadable = "a stack that cannot be read"
}
