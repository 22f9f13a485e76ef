// Chooses where a patch's mapping goes: near the object, and where nothing of the process will want to grow.

import ELF
import ProcessControl

enum FreeGap {
    static let page: UInt64 = 4096
    /// 32-bit distances reach 2 GiB; a little is kept back for offsets inside objects.
    static let reach: UInt64 = (1 << 31) - (1 << 20)
    /// Below this the kernel maps nothing for ordinary processes (`vm.mmap_min_addr`).
    static let lowest: UInt64 = 1 << 16
    static let highest: UInt64 = 0x7fff_ffff_f000
    /// Free space kept below the main stack, which grows down, and above the heap and the program, where the heap grows up.
    static let stackRoom: UInt64 = 256 << 20
    static let heapRoom: UInt64 = 4 << 30

    /// A page-aligned address with `size` free bytes and a free page on both sides, in reach of every byte of `extent`,
    /// the nearest below the object or else the nearest above. Nil when there is none.
    static func find(size: Int, near extent: Range<RuntimeAddress>, in maps: [Mapping]) -> RuntimeAddress? {
        let need = UInt64(size) + 2 * page
        var below: RuntimeAddress?, above: RuntimeAddress?
        var previousEnd = lowest
        var growsUpBefore = false
        let programInode = maps.first { $0.isFile && $0.permissions.contains(.execute) }?.inode
        for mapping in maps + [Mapping(range: RuntimeAddress(highest)..<RuntimeAddress(highest + page), permissions: [])] {
            let start = mapping.range.lowerBound.value
            guard start <= highest else { break }
            var low = previousEnd, high = start
            if growsUpBefore { low = min(low &+ heapRoom, high) }
            if mapping.path == "[stack]" { high = high > stackRoom ? high - stackRoom : 0 }
            if high > low, high - low >= need {
                // The end of the gap nearest to the object.
                let isBelow = high <= extent.lowerBound.value
                let base = isBelow ? high - page - UInt64(size) : low + page
                let first = min(base, extent.lowerBound.value), last = max(base + UInt64(size), extent.upperBound.value)
                if last - first < reach {
                    if isBelow {
                        below = RuntimeAddress(base)
                    } else if above == nil, low >= extent.upperBound.value {
                        above = RuntimeAddress(base)
                    }
                }
            }
            previousEnd = max(previousEnd, mapping.range.upperBound.value)
            // The kernel places the heap behind the program; it may not exist yet.
            growsUpBefore =
                mapping.path == "[heap]" || (mapping.isFile && mapping.inode == programInode)
                || (growsUpBefore && !mapping.isFile && mapping.path.isEmpty)
        }
        return below ?? above
    }
}
