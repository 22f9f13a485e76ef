// What limits leave, read from the texts of /proc and of cgroups.

import Testing

@testable import ProcessControl

@Suite struct MemoryHeadroomTests {
    private static let limits = """
        Limit                     Soft Limit           Hard Limit           Units
        Max data size             8192                 unlimited            bytes
        Max locked memory         8388608              8388608              bytes
        Max address space         unlimited            unlimited            bytes
        """

    @Test func limitsOfAProcess() {
        #expect(MemoryHeadroom.limit(Self.limits, "Max address space", used: 1) == .unlimited)
        #expect(MemoryHeadroom.limit(Self.limits, "Max data size", used: 4096) == .limited(left: 4096, limit: 8192))
        // What is used may exceed a limit that was lowered afterwards.
        #expect(MemoryHeadroom.limit(Self.limits, "Max data size", used: 12288) == .limited(left: -4096, limit: 8192))
        #expect(MemoryHeadroom.limit(Self.limits, "Max data size", used: nil) == .couldNotTell)
        #expect(MemoryHeadroom.limit("Max data size", "Max data size", used: 0) == .couldNotTell)
        #expect(MemoryHeadroom.limit("", "Max data size", used: 0) == .couldNotTell)
    }

    @Test func fields() {
        let fields = ProcFields("VmSize:\t    2484 kB\nCapEff:\t0000000000004000\nVmLck:\t99999999999999999999 kB\n")
        #expect(fields.bytes("VmSize") == 2484 * 1024)
        #expect(fields.bytes("VmLck") == nil && fields.bytes("VmData") == nil)
        #expect(fields.has(capability: 14, in: "CapEff") && !fields.has(capability: 21, in: "CapEff"))
    }

    @Test func cgroupsOfAProcess() {
        let paths = MemoryCgroup.paths(in: "9:name=systemd:/x\n4:cpu,memory:/a/b:c\n0::/user.slice\nnonsense\n")
        #expect(paths.map(\.isUnified) == [false, true])
        #expect(paths.map(\.path) == ["/a/b:c", "/user.slice"])
    }

    @Test func mounts() {
        let text = """
            14 35 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
            15 35 0:33 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
            16 35 0:34 /docker/1 /sys/fs/cgroup/unified rw shared:4 - cgroup2 cgroup2 rw
            17 35 0:35
            """
        let mounts = MemoryCgroup.mounts(in: text)
        #expect(mounts.map(\.point) == ["/sys/fs/cgroup/memory", "/sys/fs/cgroup/unified"])
        #expect(MemoryCgroup.folder("/a/b", mounts[0]) == "/sys/fs/cgroup/memory/a/b")
        #expect(MemoryCgroup.folder("/", mounts[0]) == "/sys/fs/cgroup/memory")
        #expect(MemoryCgroup.folder("/docker/1/a", mounts[1]) == "/sys/fs/cgroup/unified/a")
        #expect(MemoryCgroup.folder("/docker/1", mounts[1]) == "/sys/fs/cgroup/unified")
        #expect(MemoryCgroup.folder("/docker/12", mounts[1]) == nil)
        #expect(MemoryCgroup.folder("/other", mounts[1]) == nil)
    }

    @Test("page cache that is clean can be dropped, the rest cannot")
    func droppable() {
        #expect(MemoryCgroup.droppable(in: "anon 5\ninactive_file 100\nactive_file 50\nfile_dirty 30\nfile_writeback 20\n", true) == 100)
        #expect(MemoryCgroup.droppable(in: "inactive_file 9\ntotal_inactive_file 100\ntotal_active_file 50\ntotal_dirty 150\n", false) == 0)
        #expect(MemoryCgroup.droppable(in: "", true) == 0)
    }
}
