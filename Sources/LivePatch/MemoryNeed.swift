// What a transition takes of a process's memory, counted as the kernel's limits count it: computed before anything is
// touched, so that a process at a limit is refused with figures instead of pushed over it.

import ELF

public struct MemoryNeed: Equatable, Sendable {
    /// Address space: RLIMIT_AS, and RLIMIT_MEMLOCK of a process that locks everything.
    public var addressBytes: Int
    /// Private writable memory: RLIMIT_DATA, and the system's commit limit.
    public var dataBytes: Int
    /// Lines more in the process's memory map: vm.max_map_count.
    public var mappings: Int
    /// Pages that are filled, copied or become page tables: the memory cgroup's limit.
    public var residentBytes: Int
    /// Of those, the pages of files that the process no longer shares with others.
    public var unsharedBytes: Int

    public init(addressBytes: Int, dataBytes: Int, mappings: Int, residentBytes: Int, unsharedBytes: Int) {
        self.addressBytes = addressBytes
        self.dataBytes = dataBytes
        self.mappings = mappings
        self.residentBytes = residentBytes
        self.unsharedBytes = unsharedBytes
    }
}

extension ApplyPlan {
    /// A new mapping can need one table page for each level, twice where it lies across a boundary.
    static let tablePages = 6

    /// What this plan takes. `isMapped`: its memory is there already, from an earlier apply.
    public func memoryNeed(isMapped: Bool = false) -> MemoryNeed {
        // One page more holds the code of the call that maps.
        let unshared = (sitePages.count + 1) * PatchLayout.page
        if isMapped { return MemoryNeed(addressBytes: 0, dataBytes: 0, mappings: 0, residentBytes: unshared, unsharedBytes: unshared) }
        let divisions = [layout.header, layout.text, layout.readOnly, layout.data].count { !$0.isEmpty }
        return MemoryNeed(
            addressBytes: layout.size, dataBytes: layout.data.count, mappings: divisions,
            residentBytes: layout.size + unshared + Self.tablePages * PatchLayout.page, unsharedBytes: unshared)
    }

    /// What it takes besides to put prepared pages in place: for a moment both are there, and each move splits a mapping. The
    /// kernel must not run out of memory in the middle of a move.
    public var swapNeed: MemoryNeed {
        let bytes = sitePages.count * PatchLayout.page
        return MemoryNeed(
            addressBytes: bytes, dataBytes: 0, mappings: 2 * sitePages.count + 1, residentBytes: bytes + Self.tablePages * PatchLayout.page,
            unsharedBytes: 0)
    }
}
