// Limits that the kernel and the machine set for all processes.

import Glibc

public enum KernelLimits {
    /// Processors that are online; 1 where that cannot be told.
    public static func processors() -> Int { max(1, Int(sysconf(Int32(_SC_NPROCESSORS_ONLN)))) }

    /// Mappings a process may have (`vm.max_map_count`); the kernel's default where it cannot be read.
    public static func mappingsMax() -> Int {
        guard let bytes = try? RegularFile.prefix("/proc/sys/vm/max_map_count", count: 32) else { return 65_530 }
        return Int(String(decoding: bytes.prefix { $0 >= 0x30 && $0 <= 0x39 }, as: UTF8.self)) ?? 65_530
    }
}
