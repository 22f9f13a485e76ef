// Looks through all memory of a process that can hold a pointer, for one that points into a given range.

import CLinux
import ELF
import Glibc

/// Finds what may be a pointer into `target`: at any byte offset, whatever its two top bytes are (tagged pointers), and
/// also as glibc scrambles them (`setjmp`, `atexit`). What a program encodes in other ways is not found.
public final class PointerSearch {
    /// What was found.
    public struct Hit: Sendable, Equatable {
        /// Where the word lies; nil for a register.
        public var address: RuntimeAddress?
        public var pointer: UInt64
    }

    static let chunkBytes = 1 << 20
    /// glibc's pointer guard, from the thread pointer.
    static let guardOffset = 0x30

    public let target: Range<RuntimeAddress>
    private let ignored: Range<RuntimeAddress>
    private let memory: ProcessMemory
    private var buffer: [UInt8]

    /// `ignoring`: a part of `target` that may be pointed to.
    public init(into target: Range<RuntimeAddress>, ignoring: Range<RuntimeAddress>? = nil, of memory: ProcessMemory) {
        self.target = target
        ignored = ignoring ?? target.lowerBound..<target.lowerBound
        self.memory = memory
        buffer = [UInt8](repeating: 0, count: Self.chunkBytes)
    }

    /// Where a pointer can be, besides in `target` itself: all that is writable, and all that is in no file; but of the
    /// stacks that the kernel or the C library made, only what is above their stack pointer. `stackPointers` of all
    /// threads; none while the process runs: then those stacks are left out.
    public func places(in maps: [Mapping], stackPointers: [RuntimeAddress]) -> [Range<RuntimeAddress>] {
        var result: [Range<RuntimeAddress>] = []
        var before: Mapping?
        for mapping in maps {
            defer { before = mapping }
            guard mapping.permissions.contains(.read), mapping.permissions.contains(.write) || !mapping.isFile,
                !mapping.range.overlaps(target), !Self.notMemory.contains(mapping.path)
            else { continue }
            // Below a guard page lies nothing that the C library would put on a stack.
            let isGuarded = before.map {
                $0.range.upperBound == mapping.range.lowerBound && $0.permissions.isDisjoint(with: [.read, .write, .execute])
            }
            guard mapping.path == "[stack]" || isGuarded == true else {
                result.append(mapping.range)
                continue
            }
            if stackPointers.isEmpty { continue }
            let here = stackPointers.filter { mapping.range.contains($0) }
            // Not the stack of one thread, then: a heap of the C library also begins behind a guard.
            guard here.count == 1 else {
                result.append(mapping.range)
                continue
            }
            let live = max(mapping.range.lowerBound, RuntimeAddress((here[0].value &- Self.redZoneBytes) & ~7))
            result.append(live..<mapping.range.upperBound)
        }
        return result
    }

    private static let redZoneBytes: UInt64 = 128
    private static let notMemory: Set<String> = ["[vvar]", "[vvar_vclock]", "[vdso]", "[vsyscall]"]

    /// The guard that glibc scrambles pointers with, if there is such a thread.
    public func pointerGuard(of threadPointer: RuntimeAddress) -> UInt64? {
        guard let bytes = try? memory.read(at: threadPointer + Self.guardOffset, count: 8) else { return nil }
        return bytes.reversed().reduce(0) { $0 << 8 | UInt64($1) }
    }

    /// A register that may point into `target`.
    public func firstHit(in registers: [UInt64], guard scramble: UInt64?) -> Hit? {
        for word in registers {
            if isInside(word & 0xffff_ffff_ffff) { return Hit(address: nil, pointer: word) }
            if let scramble, isInside(Self.unscrambled(word, scramble)) { return Hit(address: nil, pointer: word) }
        }
        return nil
    }

    /// The first word in `places` that may point into `target`. Failure: `memory-unreadable`, for memory that is mapped
    /// and cannot be read (a device's): it may hold anything.
    public func firstHit(in places: [Range<RuntimeAddress>], guard scramble: UInt64?) throws(Failure) -> Hit? {
        for place in places {
            var at = place.lowerBound
            while at < place.upperBound {
                let count = min(Self.chunkBytes, place.upperBound - at)
                let isRead = unsafe buffer.withUnsafeMutableBytes {
                    unsafe fother_process_read(memory.thread.value, at.value, $0.baseAddress, count) == Int64(count)
                }
                guard isRead else {
                    throw Failure(
                        "memory-unreadable", "\(count) bytes at \(at) cannot be read.", at: "process \(memory.process)")
                }
                if let offset = plain(count) ?? scramble.flatMap({ scrambled(count, $0) }) {
                    return Hit(address: at + offset, pointer: word(offset))
                }
                // A pointer may lie across the end of the chunk.
                at = at + (count == Self.chunkBytes ? count - 8 : count)
            }
        }
        return nil
    }

    /// Offset of the first pointer in the buffer, by its middle bytes: within 64 KiB they are the same for all.
    private func plain(_ count: Int) -> Int? {
        var granule = target.lowerBound.value >> 16
        let last = (target.upperBound.value - 1) >> 16
        var first: Int?
        while granule <= last {
            let needle = (0..<4).map { UInt8(truncatingIfNeeded: granule >> UInt64(8 * $0)) }
            var from = 2
            while from < count {
                let found = unsafe buffer.withUnsafeBytes { bytes in
                    unsafe needle.withUnsafeBytes {
                        unsafe fother_find(bytes.baseAddress?.advanced(by: from), count - from, $0.baseAddress, $0.count)
                    }
                }
                guard found >= 0 else { break }
                let middle = from + Int(found)
                let address = granule << 16 | UInt64(buffer[middle - 1]) << 8 | UInt64(buffer[middle - 2])
                if isInside(address) {
                    first = min(first ?? .max, middle - 2)
                    break
                }
                from = middle + 1
            }
            granule += 1
        }
        return first
    }

    private func scrambled(_ count: Int, _ scramble: UInt64) -> Int? {
        let low = target.lowerBound.value, span = target.upperBound.value - low
        return unsafe buffer.withUnsafeBytes { bytes in
            let words = unsafe bytes.assumingMemoryBound(to: UInt64.self)
            for i in 0..<count / 8 where unsafe Self.unscrambled(words[i], scramble) &- low < span { return i * 8 }
            return nil
        }
    }

    private func isInside(_ address: UInt64) -> Bool {
        target.contains(RuntimeAddress(address)) && !ignored.contains(RuntimeAddress(address))
    }

    /// glibc: `ror 17; xor guard`.
    private static func unscrambled(_ word: UInt64, _ scramble: UInt64) -> UInt64 { (word >> 17 | word << 47) ^ scramble }

    private func word(_ offset: Int) -> UInt64 {
        (0..<8).reversed().reduce(0) { $0 << 8 | (offset + $1 < buffer.count ? UInt64(buffer[offset + $1]) : 0) }
    }
}
