// Which processes live in the same memory: a child between vfork and exec, or what clone made with CLONE_VM. Stopping one does not
// stop the others.

import CLinux
import ELF
import Glibc
import Synchronization

/// Remembers who shares with whom for a moment, so that a thousand processes need not each be compared with all others. What
/// came since is compared at once: ids are given in order, so that it is known what those can be called.
public final class MemoryGroups: Sendable {
    /// A number of a process may be another's after the numbers have gone round; not within this time.
    static let ageMax = Duration.seconds(1)
    /// From this age on somebody makes a new one, while the others go on with the old.
    static let renewalAge = Duration.milliseconds(500)
    /// An id that was given so long ago belongs to somebody who can be found by now, or never will.
    static let birthMax = Duration.milliseconds(20)
    /// With more new ids than this it is quicker to look at all processes again.
    static let newMax: Int32 = 2048
    static let roundsMax = 32

    private struct Snapshot: Sendable {
        let made: ContinuousClock.Instant
        /// Whoever has an id up to this one is known, or one of the newcomers.
        var settledID: Int32
        var newcomers: [ProcessID] = []
        /// The id that was given last at a moment some time ago.
        var mark: (time: ContinuousClock.Instant, id: Int32)
        let known: Set<ProcessID>
        /// Processes that share, by each of them; those on their own are left out.
        let groups: [ProcessID: [ProcessID]]

        init(_ known: Set<ProcessID>, _ groups: [ProcessID: [ProcessID]], lastID: Int32) {
            made = .now
            settledID = lastID
            mark = (made, lastID)
            self.known = known
            self.groups = groups
        }

        func isUsable(_ lastID: Int32) -> Bool {
            made + MemoryGroups.ageMax > .now && lastID >= settledID && lastID - settledID <= MemoryGroups.newMax
        }
    }
    private struct State: Sendable {
        var snapshot: Snapshot?
        /// Somebody is about to put a better one in its place.
        var isImproved = false
    }
    private let state = Mutex(State())
    /// Held while one is taken that nobody can do without.
    private let taking = Mutex(())
    /// Compares two processes' memory: see `fother_order_memory`.
    private let order: @Sendable (Int32, Int32) -> Int32

    /// What the kernel says.
    static let kernelOrder: @Sendable (Int32, Int32) -> Int32 = { fother_order_memory($0, $1) }

    public convenience init() { self.init(order: Self.kernelOrder) }
    init(order: @escaping @Sendable (Int32, Int32) -> Int32) { self.order = order }

    /// Others that live in the same memory as `process`; empty also where the kernel cannot tell (no CONFIG_KCMP).
    public func sharing(with process: ProcessHandle) throws(Failure) -> [ProcessID] {
        let thread = try process.livingThread()
        let current = try snapshot()
        // Where ids came round to the beginning, or cannot be told, all are asked; and who is not known was not compared with
        // anybody.
        let candidates: [ProcessID] =
            if let current, let last = Self.lastID(), last >= current.settledID, current.known.contains(process.id) {
                (current.groups[process.id] ?? []) + current.newcomers + (current.settledID..<last).map { ProcessID($0 + 1) }
            } else { try listProcesses() }
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

    /// One that can be used now, or nil when there is none. The kernel is asked outside of locks, but where all must wait for the
    /// answer anyway.
    private func snapshot() throws(Failure) -> Snapshot? {
        guard let last = Self.lastID() else { return nil }
        let (usable, isOurs) = state.withLock { state -> (Snapshot?, Bool) in
            guard let held = state.snapshot, held.isUsable(last) else { return (nil, false) }
            let isOurs = !state.isImproved && (held.made + Self.renewalAge <= .now || held.mark.time + Self.birthMax <= .now)
            if isOurs { state.isImproved = true }
            return (held, isOurs)
        }
        guard let usable else {
            return try taking.withLock { _ throws(Failure) -> Snapshot? in
                // Another may have taken one while this one waited.
                guard let last = Self.lastID() else { return nil }
                if let held = state.withLock({ $0.snapshot }), held.isUsable(last) { return held }
                let taken = try take(lastID: last)
                state.withLock { $0.snapshot = taken }
                return taken
            }
        }
        guard isOurs else { return usable }
        defer { state.withLock { $0.isImproved = false } }
        let better = usable.made + Self.renewalAge <= .now ? try take(lastID: last) : settled(usable, last)
        state.withLock { if $0.snapshot.map({ $0.made <= better.made }) ?? true { $0.snapshot = better } }
        return better
    }

    /// Looks once at each id that was given long enough ago. Most are of Fother's own threads.
    private func settled(_ snapshot: Snapshot, _ lastID: Int32) -> Snapshot {
        var result = snapshot
        let now = ContinuousClock.now, end = max(snapshot.settledID, snapshot.mark.id)
        for id in snapshot.settledID..<end {
            // Only of one that is not there it is known that it shares nothing.
            let exists = order(id + 1, id + 1) != -ESRCH
            if exists, fother_tgkill(ProcessID.own.value, id + 1, 0) != 0 { result.newcomers.append(ProcessID(id + 1)) }
        }
        result.settledID = end
        result.mark = (now, lastID)
        return result
    }

    /// The last field of /proc/loadavg; nil when it cannot be told.
    private static func lastID() -> Int32? {
        systemText("/proc/loadavg")?.split(whereSeparator: \.isWhitespace).last.flatMap { Int32($0) }
    }

    /// Sorts the processes by their memory, in the order that the kernel gives. Those that end meanwhile have no place: they are
    /// not known, and compared one by one. When that goes on, nobody is known.
    private func take(lastID: Int32) throws(Failure) -> Snapshot {
        var list = try listProcesses()
        for _ in 0..<Self.roundsMax {
            list = list.filter { order($0.value, $0.value) == 0 }
            var hasFailed = false
            let sorted = list.sorted { a, b in
                let order = order(a.value, b.value)
                if order < 0 || order > 2 { hasFailed = true }
                return order == 1
            }
            // Those that ended are left out next time, and what is nearly in order is put in order quickly.
            list = sorted
            if hasFailed { continue }
            var groups: [ProcessID: [ProcessID]] = [:], first = 0
            for i in 1...max(1, sorted.count) {
                if i < sorted.count {
                    let order = order(sorted[i - 1].value, sorted[i].value)
                    if order < 0 || order > 2 { hasFailed = true }
                    if order == 0 { continue }
                }
                if i - first > 1 {
                    for p in sorted[first..<min(i, sorted.count)] { groups[p] = Array(sorted[first..<min(i, sorted.count)]) }
                }
                first = i
            }
            if hasFailed { continue }
            return Snapshot(Set(sorted), groups, lastID: lastID)
        }
        return Snapshot([], [:], lastID: lastID)
    }
}
