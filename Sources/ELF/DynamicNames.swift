// Asks the dynamic section of a loaded object for names: what it offers to others and wants of
// them. Read from memory, hostile.

/// The dynamic section, and where its tables are.
struct DynamicSection {
    static let segmentType: UInt32 = 2
    /// Entries that are read.
    static let entriesMax = 4096

    /// The last value of each tag.
    private(set) var values: [UInt64: UInt64] = [:]
    private let segments: [Segment]
    private let bias: LoadBias

    init?(_ segments: [Segment], _ bias: LoadBias, _ memory: some MemoryReader) {
        self.segments = segments
        self.bias = bias
        guard let segment = segments.first(where: { $0.type == Self.segmentType }), segment.memorySize <= Self.entriesMax * 16,
            let raw = try? memory.read(at: bias.runtime(segment.address), count: segment.memorySize & ~15)
        else { return nil }
        let entries = Bytes(raw, name: "dynamic section")
        for at in stride(from: 0, to: entries.count, by: 16) {
            guard let tag = entries.u64(at), tag != 0, let value = entries.u64(at + 8) else { break }
            values[tag] = value
        }
    }

    /// glibc adds the load bias in memory, musl and the kernel's own object leave link addresses.
    func place(_ tag: UInt64) -> RuntimeAddress? {
        values[tag].map { value in
            let isLink = segments.contains { $0.type == Segment.load && $0.contains(LinkAddress(value)) }
            return isLink ? bias.runtime(LinkAddress(value)) : RuntimeAddress(value)
        }
    }

    func strings(_ memory: some MemoryReader) -> Bytes? {
        guard let place = place(5), let size = values[10].flatMap({ Int(exactly: $0) }), size <= DynamicNames.stringBytesMax,
            let text = try? memory.read(at: place, count: size)
        else { return nil }
        return Bytes(text, name: "dynamic strings")
    }
}

/// Which of some names are in an object's dynamic symbol table.
public struct DynamicNames: Sendable, Equatable {
    /// Bytes of symbols and of names that are read.
    public static let symbolBytesMax = 24 << 20
    public static let stringBytesMax = 64 << 20

    public var offered: Set<String> = []
    public var wanted: Set<String> = []
    /// Symbols in the table, whatever their names.
    public var count = 0

    /// Looks for `names`. Nil when there is no table, or none that makes sense.
    public init?(_ names: [String], in segments: [Segment], bias: LoadBias, of memory: some MemoryReader) {
        guard let section = DynamicSection(segments, bias, memory) else { return nil }
        // Linkers put the names behind the symbols; sections between the two only make the count too large.
        guard let symbols = section.place(6), let strings = section.place(5), strings > symbols, strings - symbols > 0,
            strings - symbols <= Self.symbolBytesMax, let table = try? memory.read(at: symbols, count: (strings - symbols) / 24 * 24),
            let letters = section.strings(memory)
        else { return nil }
        let keys = names.map { ($0, Array($0.utf8) + [0]) }
        let firsts = Set(keys.compactMap { $0.1.first })
        let view = Bytes(table, name: "dynamic symbols")
        count = table.count / 24
        for at in stride(from: 24, to: table.count, by: 24) {
            guard let name = view.u32(at).map({ Int($0) }), let first = letters.u8(name), firsts.contains(first) else { continue }
            for (string, key) in keys where letters.slice(name, key.count).map({ $0.elementsEqual(key) }) == true {
                if view.u16(at + 6) == 0 { wanted.insert(string) } else { offered.insert(string) }
            }
        }
    }
}
