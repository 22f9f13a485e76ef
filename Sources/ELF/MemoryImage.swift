// What a loaded object says about itself in memory: program headers, load bias, build ID. The file it came from may be
// gone or replaced, so nothing here is read from disk.

/// The loaded image of one ELF object in one process. Its headers are untrusted: the process can write anything there.
public struct MemoryImage: Sendable {
    public static let segmentsMax = 64
    /// Notes beyond this are not searched for a build ID.
    public static let notesMax = 16_384

    /// Where file offset 0 is mapped.
    public let base: RuntimeAddress
    public let bias: LoadBias
    public let type: UInt16
    public let segments: [Segment]
    public let buildID: BuildID?

    /// Reads the headers at `base`. Throws `not-elf`, `elf-unsupported`, `elf-malformed`, or what the reader throws.
    public init(_ memory: some MemoryReader, at base: RuntimeAddress) throws {
        let header = Bytes(try memory.read(at: base, count: 64), name: "memory at \(base)")
        guard header.u32(0) == 0x464c_457f else {
            throw Failure("not-elf", "no ELF header is mapped here.", at: header.name)
        }
        guard header.u8(4) == 2, header.u8(5) == 1, header.u16(18) == 62 else {
            throw Failure("elf-unsupported", "only 64-bit x86-64 objects are understood.", at: header.name)
        }
        self.base = base
        type = header.u16(16) ?? 0
        let count = Int(header.u16(56) ?? 0)
        guard header.u16(54) == 56, count > 0, count <= Self.segmentsMax, let table = header.u64(32), table < 1 << 20 else {
            throw Failure("elf-malformed", "the program headers in memory make no sense.", at: header.name)
        }
        let raw = Bytes(try memory.read(at: base + Int(table), count: count * 56), name: header.name)
        var segments: [Segment] = []
        for i in 0..<count {
            let at = i * 56
            guard let fileSize = Int(exactly: raw.u64(at + 32) ?? 0), let size = Int(exactly: raw.u64(at + 40) ?? 0),
                fileSize < 1 << 40, size < 1 << 40
            else { throw Failure("elf-malformed", "program header \(i) in memory makes no sense.", at: header.name) }
            segments.append(
                Segment(
                    type: raw.u32(at) ?? 0, flags: raw.u32(at + 4) ?? 0, offset: FileOffset(raw.u64(at + 8) ?? 0),
                    address: LinkAddress(raw.u64(at + 16) ?? 0), fileSize: fileSize, memorySize: size))
        }
        self.segments = segments
        guard let first = segments.first(where: { $0.type == Segment.load && $0.offset.value == 0 }) else {
            throw Failure("elf-malformed", "no loaded segment covers the ELF header in memory.", at: header.name)
        }
        bias = LoadBias(base, minus: first.address)
        var id: BuildID?
        for note in segments where note.type == Segment.note && id == nil {
            guard note.memorySize <= Self.notesMax,
                let bytes = try? memory.read(at: bias.runtime(note.address), count: note.memorySize)
            else { continue }
            id = ELFFile.buildID(inNotes: bytes[...])
        }
        buildID = id
    }

    /// The link addresses from the first to the last loaded byte, end exclusive; page rounding is the caller's.
    public var extent: Range<LinkAddress> {
        let loads = segments.filter { $0.type == Segment.load }
        let low = loads.map(\.address).min() ?? LinkAddress(0)
        let high = loads.map { $0.address + $0.memorySize }.max() ?? low
        return low..<max(low, high)
    }
}
