// Compares what a plan needs of a process's memory with what the limits leave, before anything is touched.

import ELF
import LivePatch
import ProcessControl

extension MemoryHeadroom {
    /// Left to a memory cgroup for what the process itself takes meanwhile: at its limit the kernel kills somebody in it.
    static let cgroupReserveBytes = 1 << 20
    /// Lines of the memory map left to the process.
    static let mappingsReserve = 8

    /// Failures: `map-count`, `no-memory-headroom`, with figures.
    func require(_ need: MemoryNeed, of process: ProcessHandle) throws(Failure) {
        if need.mappings > 0, case .limited(let left, let limit) = mappings, need.mappings + Self.mappingsReserve > left {
            throw Failure(
                "map-count",
                "the patch adds \(need.mappings) lines to its memory map, and vm.max_map_count (\(limit)) leaves \(max(0, left)), of which "
                    + "\(Self.mappingsReserve) are kept free.", at: "\(process)",
                remedy: "Raise the limit: sysctl vm.max_map_count=\(limit + limit / 4)")
        }
        func require(_ bytes: Int, _ room: Headroom, _ what: String, reserve: Int = 0, _ remedy: String) throws(Failure) {
            guard bytes > 0, case .limited(let left, let limit) = room, bytes + reserve > left else { return }
            let kept = reserve > 0 ? ", of which \(reserve >> 10) KiB are kept free" : ""
            throw Failure(
                "no-memory-headroom",
                "the patch needs \((bytes + 1023) >> 10) KiB more, and \(what) (\(limit >> 10) KiB) leaves \(max(0, left) >> 10) KiB\(kept).",
                at: "\(process)", remedy: remedy)
        }
        let prlimit = "Raise the limit while it runs: prlimit --pid \(process.id)"
        try require(need.addressBytes, addressSpace, "its limit of address space", "\(prlimit) --as=…")
        try require(need.dataBytes, data, "its limit of data", "\(prlimit) --data=…")
        try require(need.addressBytes, locked, "its limit of locked memory, all of its memory being locked,", "\(prlimit) --memlock=…")
        try require(
            need.residentBytes, cgroup, "the limit of its memory cgroup", reserve: Self.cgroupReserveBytes,
            "Raise the cgroup's limit (MemoryMax= of its unit), or let it drop memory.")
        try require(
            need.dataBytes, commit, "the commit limit of this system, which does not overcommit,",
            "Free memory, or raise vm.overcommit_ratio.")
    }
}
