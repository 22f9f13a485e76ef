// Which processes live in the same memory: a child between vfork and exec, or what clone made with CLONE_VM. Stopping one does not
// stop the others.

import CLinux
import ELF
import Synchronization

/// Remembers who shares with whom for a moment, so that a thousand processes need not each be compared with all others. What
/// came since is compared at once: ids are given in order, so that it is known what those can be called.
public final class MemoryGroups: Sendable {
    /// A number of a process may be another's after the numbers have gone round; not within this time.
    static let ageMax = Duration.seconds(1)
    /// An id that was given so long ago belongs to somebody who can be found by now, or never will.
    static let birthMax = Duration.milliseconds(20)
    /// With more new ids than this it is quicker to look at all processes again.
    static let newMax: Int32 = 2048

    private struct Snapshot: Sendable {
        var made: ContinuousClock.Instant
        /// Whoever has an id up to this one is known, or one of the newcomers.
        var settledID: Int32
        var newcomers: [ProcessID] = []
        /// The id that was given last at a moment some time ago.
        var mark: (time: ContinuousClock.Instant, id: Int32)
        var known: Set<ProcessID>
        /// Processes that share, by each of them; those on their own are left out.
        var groups: [ProcessID: [ProcessID]]

        init(_ known: Set<ProcessID>, _ groups: [ProcessID: [ProcessID]], lastID: Int32) {
            made = .now
            settledID = lastID
            mark = (made, lastID)
            self.known = known
            self.groups = groups
        }

        /// Looks once at each id that was given long enough ago. Most are of Fother's own threads.
        mutating func settle(_ lastID: Int32) {
            let now = ContinuousClock.now
            guard mark.time + MemoryGroups.birthMax <= now else { return }
            for id in settledID..<max(settledID, mark.id) {
                let exists = fother_order_memory(id + 1, id + 1) == 0
                if exists, fother_tgkill(ProcessID.own.value, id + 1, 0) != 0 { newcomers.append(ProcessID(id + 1)) }
            }
            settledID = max(settledID, mark.id)
            mark = (now, lastID)
        }
    }
    private let snapshot = Mutex<Snapshot?>(nil)

    public init() {}

    /// Others that live in the same memory as `process`; empty also where the kernel cannot tell (no CONFIG_KCMP).
    public func sharing(with process: ProcessHandle) throws(Failure) -> [ProcessID] {
        let thread = try process.livingThread()
        // One at a time takes a new one; the others wait for it instead of taking theirs.
        let current = try snapshot.withLock { held throws(Failure) -> Snapshot in
            let last = Self.lastID()
            if var current = held, let last, current.made + Self.ageMax > .now, current.known.contains(process.id),
                last >= current.settledID, last - current.settledID <= Self.newMax
            {
                current.settle(last)
                held = current
                return current
            }
            let taken = Self.take(try listProcesses(), lastID: last ?? .max)
            held = last == nil ? nil : taken
            return taken
        }
        // Where ids came round to the beginning, or cannot be told, all are asked for.
        let new =
            if let last = Self.lastID(), last >= current.settledID { (current.settledID..<last).map { ProcessID($0 + 1) } } else {
                try listProcesses().filter { !current.known.contains($0) }
            }
        // Who is not known was not compared with anybody.
        let old = current.known.contains(process.id) ? current.groups[process.id] ?? [] : try listProcesses()
        let candidates = old + current.newcomers + new
        let others = candidates.filter { $0 != process.id && fother_share_memory(thread.value, $0.value) == 1 }
        if others.isEmpty { return [] }
        // Whoever has no memory at all, a kernel thread or one that is ending, has the same as others without any.
        _ = try process.livingThread()
        return others.filter { other in
            guard let status = try? ProcessHandle(other).status() else { return false }
            // Its own new threads are stopped with it.
            return !status.isKernelThread && !status.isEnded && status.threadGroup != process.id
        }
    }

    /// The last field of /proc/loadavg; nil when it cannot be told.
    private static func lastID() -> Int32? {
        systemText("/proc/loadavg")?.split(whereSeparator: \.isWhitespace).last.flatMap { Int32($0) }
    }

    /// Sorts the processes by their memory, in the order that the kernel gives. Those that end meanwhile have no place: they are
    /// not known, and compared one by one.
    private static func take(_ all: [ProcessID], lastID: Int32) -> Snapshot {
        var list = all
        for _ in 0..<32 {
            list = list.filter { fother_order_memory($0.value, $0.value) == 0 }
            var hasFailed = false
            let sorted = list.sorted { a, b in
                let order = fother_order_memory(a.value, b.value)
                if order < 0 || order > 2 { hasFailed = true }
                return order == 1
            }
            // Those that ended are left out next time, and what is nearly in order is put in order quickly.
            list = sorted
            if hasFailed { continue }
            var groups: [ProcessID: [ProcessID]] = [:], first = 0
            for i in 1...max(1, sorted.count) where i >= sorted.count || fother_order_memory(sorted[i - 1].value, sorted[i].value) != 0 {
                if i - first > 1 {
                    for p in sorted[first..<min(i, sorted.count)] { groups[p] = Array(sorted[first..<min(i, sorted.count)]) }
                }
                first = i
            }
            return Snapshot(Set(sorted), groups, lastID: lastID)
        }
        return Snapshot([], [:], lastID: lastID)
    }
}
