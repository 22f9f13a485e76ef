// Looks at the stacks of threads as they come to a stop, on a second processor while the first is still stopping others: reading
// stacks is most of what a stop costs.

import ELF
import LivePatch
import ProcessControl
import Synchronization

final class StackScan: Sendable {
    /// With fewer threads a second processor is not worth waking.
    static let threadsMin = 4
    /// With fewer processors it would take the place of a thread that has not been stopped yet.
    static let processorsMin = 4

    private struct Work {
        var waiting: [StoppedThread] = []
        var next = 0
        var underWay = 0
        var isClosed = false
        var blocking: [BlockingThread] = []
    }
    private let work = Mutex(Work())
    private let guarded: GuardedRanges
    private let stacks: StackMap
    private let walker: StackWalker?
    private let memory: ProcessMemory

    init(_ guarded: GuardedRanges, _ stacks: StackMap, _ walker: StackWalker?, _ memory: ProcessMemory) {
        self.guarded = guarded
        self.stacks = stacks
        self.walker = walker
        self.memory = memory
    }

    /// A thread that stands still from now on.
    func add(_ thread: StoppedThread) { work.withLock { $0.waiting.append(thread) } }

    /// The same, and it is looked at here and now.
    func lookAt(_ thread: StoppedThread, _ words: WordReader) {
        guard let found = SafePoint.blocking(thread, guarded, stacks, words, walker) else { return }
        work.withLock { $0.blocking.append(found) }
    }

    /// No more will come: looks at what is left and returns what blocks, when all have been looked at.
    func finish(_ words: WordReader) -> [BlockingThread] {
        work.withLock { $0.isClosed = true }
        while let thread = take() { look(thread, words) }
        while true {
            let done = work.withLock { $0.underWay == 0 ? $0.blocking : nil }
            if let done { return done.sorted { $0.thread < $1.thread } }
        }
    }

    /// The second processor's part: until `finish` or `abandon`.
    func help() {
        let words = WordReader(memory)
        var hasBegun = false
        while true {
            if let thread = take() {
                hasBegun = true
                look(thread, words)
            } else if work.withLock({ $0.isClosed }) {
                return
            } else if !hasBegun {
                Tracer.shortRest()
            }
        }
    }

    /// The stop failed.
    func abandon() { work.withLock { $0.isClosed = true } }

    private func take() -> StoppedThread? {
        work.withLock { w in
            guard w.next < w.waiting.count else { return nil }
            w.next += 1
            w.underWay += 1
            return w.waiting[w.next - 1]
        }
    }

    private func look(_ thread: StoppedThread, _ words: WordReader) {
        let found = SafePoint.blocking(thread, guarded, stacks, words, walker)
        work.withLock { w in
            if let found { w.blocking.append(found) }
            w.underWay -= 1
        }
    }
}
