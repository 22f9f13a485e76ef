// Finds room for a call stub in a target that has no memory of ours yet: between the end of an object's code and the
// end of its last page. Those bytes are mapped executable and nobody runs them.

import ELF

public enum CallRoom {
    /// Kept free behind the last byte that is not zero, so that nothing that looks past its end sees the stub.
    static let marginBytes = 16
    static let page: UInt64 = 4096

    /// The address of `count` zero bytes in such a place; nil when no object has that many.
    static func find(_ count: Int, in maps: [Mapping], of memory: ProcessMemory) throws(Failure) -> RuntimeAddress? {
        for room in try rooms(in: maps, of: memory) {
            let bytes = room.bytes
            let used = (bytes.lastIndex { $0 != 0 } ?? -1) + 1
            let start = (room.range.lowerBound + used + marginBytes + 15).value & ~15
            if start &+ UInt64(count) <= room.range.upperBound.value { return RuntimeAddress(start) }
        }
        return nil
    }

    /// Where stubs are, each range from the first of them to the end of its page. A thread found there, or on its way back
    /// there, is in the middle of a call that some Fother started and did not live to see the end of, or that a signal
    /// interrupted: nothing may be changed until it is through. Then `clear` takes them away.
    public static func occupied(in maps: [Mapping], of memory: ProcessMemory) throws(Failure) -> [Range<RuntimeAddress>] {
        try rooms(in: maps, of: memory).compactMap { room in
            let n = CallStub.opening.count
            guard room.bytes.count >= n else { return nil }
            // What the file itself has there, in front of the stubs, stays.
            let first = (0...room.bytes.count - n).first {
                room.bytes[$0] == CallStub.opening[0] && room.bytes[$0..<$0 + n].elementsEqual(CallStub.opening)
            }
            return first.map { room.range.lowerBound + $0..<room.range.upperBound }
        }
    }

    /// Takes stubs away that no thread is in, or will return into.
    public static func clear(_ rooms: [Range<RuntimeAddress>], of memory: ProcessMemory) {
        for room in rooms { try? memory.write([UInt8](repeating: 0, count: room.upperBound - room.lowerBound), at: room.lowerBound) }
    }

    private static func rooms(
        in maps: [Mapping], of memory: ProcessMemory
    ) throws(Failure) -> [(range: Range<RuntimeAddress>, bytes: [UInt8])] {
        var result: [(range: Range<RuntimeAddress>, bytes: [UInt8])] = []
        var header: Mapping?
        for mapping in maps where mapping.isFile {
            if mapping.offset.value == 0 { header = mapping }
            guard mapping.permissions == [.read, .execute], let header, header.inode == mapping.inode, header.device == mapping.device,
                let image = try? MemoryImage(memory, at: header.range.lowerBound)
            else { continue }
            for segment in image.segments where segment.type == Segment.load && segment.flags & 1 != 0 {
                let end = image.bias.runtime(segment.address + segment.memorySize)
                let pageEnd = RuntimeAddress((end.value &+ (page - 1)) & ~(page - 1))
                guard end < pageEnd, mapping.range.contains(end), pageEnd <= mapping.range.upperBound else { continue }
                result.append((end..<pageEnd, try memory.read(at: end, count: pageEnd - end)))
            }
        }
        return result
    }
}
