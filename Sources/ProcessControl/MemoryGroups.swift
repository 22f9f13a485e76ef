// Which processes live in the same memory: a child between vfork and exec, or what clone made with CLONE_VM. Stopping one does not
// stop the others.

import CLinux
import ELF
import Synchronization

/// Remembers who shares with whom for a moment, so that a thousand processes need not each be compared with all others. What
/// came since is compared at once.
public final class MemoryGroups: Sendable {
    /// A number of a process may be another's after the numbers have gone round; not within this time.
    static let ageMax = Duration.seconds(1)

    private struct Snapshot: Sendable {
        var made: ContinuousClock.Instant
        var known: Set<ProcessID>
        /// Processes that share, by each of them; those on their own are left out.
        var groups: [ProcessID: [ProcessID]]
    }
    private let snapshot = Mutex<Snapshot?>(nil)

    public init() {}

    /// Others that live in the same memory as `process`; empty also where the kernel cannot tell (no CONFIG_KCMP).
    public func sharing(with process: ProcessHandle) throws(Failure) -> [ProcessID] {
        let thread = try process.livingThread(), now = ContinuousClock.now
        let all = try listProcesses()
        let current: Snapshot
        if let held = snapshot.withLock({ $0 }), held.made + Self.ageMax > now, held.known.contains(process.id) {
            current = held
        } else {
            current = Self.take(all, now)
            snapshot.withLock { $0 = current }
        }
        let new = all.filter { !current.known.contains($0) }
        let candidates = (current.groups[process.id] ?? []) + new
        let others = candidates.filter { $0 != process.id && fother_share_memory(thread.value, $0.value) == 1 }
        if others.isEmpty { return [] }
        // Whoever has no memory at all, a kernel thread or one that is ending, has the same as others without any.
        _ = try process.livingThread()
        return others.filter { (try? ProcessHandle($0).status()).map { !$0.isKernelThread && !$0.isEnded } ?? false }
    }

    /// Sorts the processes by their memory, in the order that the kernel gives. Those that end meanwhile have no place: they are
    /// not known, and compared one by one.
    private static func take(_ all: [ProcessID], _ now: ContinuousClock.Instant) -> Snapshot {
        var list = all
        for _ in 0..<8 {
            list = list.filter { fother_order_memory($0.value, $0.value) == 0 }
            var hasFailed = false
            let sorted = list.sorted { a, b in
                let order = fother_order_memory(a.value, b.value)
                if order < 0 || order > 2 { hasFailed = true }
                return order == 1
            }
            if hasFailed { continue }
            var groups: [ProcessID: [ProcessID]] = [:], first = 0
            for i in 1...max(1, sorted.count) where i >= sorted.count || fother_order_memory(sorted[i - 1].value, sorted[i].value) != 0 {
                if i - first > 1 {
                    for p in sorted[first..<min(i, sorted.count)] { groups[p] = Array(sorted[first..<min(i, sorted.count)]) }
                }
                first = i
            }
            return Snapshot(made: now, known: Set(sorted), groups: groups)
        }
        return Snapshot(made: now, known: [], groups: [:])
    }
}
