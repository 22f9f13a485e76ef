// What a loaded object exports, read from its memory: the file it came from may be gone. Everything is untrusted.
// Source: System V gABI, "Dynamic Section"; the GNU hash table as binutils and glibc lay it out.

public struct DynamicSymbols: Sendable {
    static let entriesMax = 4096
    static let bucketsMax: UInt32 = 1 << 24
    /// Symbols that share one bucket; a linker aims at a few.
    static let chainMax = 65_536
    static let nameMax = 256

    private let bias: LoadBias
    private let symbols: RuntimeAddress
    private let strings: RuntimeAddress
    private let hash: RuntimeAddress
    private let bucketCount: UInt32
    private let firstSymbol: UInt32
    private let bloomCount: UInt32
    private let bloomShift: UInt32

    /// Nil when the object has no GNU hash table, or nothing there makes sense. `extent`: the object's mapped range.
    public init?(_ memory: some MemoryReader, bias: LoadBias, segments: [Segment], extent: Range<RuntimeAddress>) {
        guard let dynamic = segments.first(where: { $0.type == Segment.dynamic }) else { return nil }
        let count = min(dynamic.memorySize / 16, Self.entriesMax)
        guard let raw = try? memory.read(at: bias.runtime(dynamic.address), count: count * 16) else { return nil }
        let view = Bytes(raw, name: "dynamic section")
        var found: [UInt64: RuntimeAddress] = [:]
        for i in 0..<count {
            guard let tag = view.u64(i * 16), let value = view.u64(i * 16 + 8), tag != 0 else { break }
            // glibc replaces link addresses by run addresses there; other loaders do not.
            let placed = RuntimeAddress(value)
            found[tag] = extent.contains(placed) ? placed : bias.runtime(LinkAddress(value))
        }
        guard let symbols = found[6], let strings = found[5], let hash = found[0x6fff_fef5],
            let head = try? memory.read(at: hash, count: 16)
        else { return nil }
        let words = Bytes(head, name: "hash table")
        self.bias = bias
        self.symbols = symbols
        self.strings = strings
        self.hash = hash
        bucketCount = words.u32(0) ?? 0
        firstSymbol = words.u32(4) ?? 0
        bloomCount = words.u32(8) ?? 0
        bloomShift = words.u32(12) ?? 0
        guard bucketCount > 0, bucketCount <= Self.bucketsMax, bloomCount > 0, bloomCount <= Self.bucketsMax, bloomShift < 32 else {
            return nil
        }
    }

    /// Link addresses of every function with this name that the object defines, one for each symbol version.
    public func functions(named name: String, _ memory: some MemoryReader) -> [Range<LinkAddress>] {
        let wanted = Array(name.utf8)
        guard wanted.count < Self.nameMax else { return [] }
        let h = wanted.reduce(UInt32(5381)) { $0 &* 33 &+ UInt32($1) }
        func word32(_ at: RuntimeAddress) -> UInt32? { (try? memory.read(at: at, count: 4)).flatMap { Bytes($0, name: "").u32(0) } }
        guard let filter = try? memory.read(at: hash + 16 + Int(h / 64 % bloomCount) * 8, count: 8),
            let bits = Bytes(filter, name: "").u64(0), bits >> UInt64(h % 64) & 1 == 1, bits >> UInt64((h >> bloomShift) % 64) & 1 == 1
        else { return [] }
        let buckets = hash + 16 + Int(bloomCount) * 8
        let chains = buckets + Int(bucketCount) * 4
        guard var index = word32(buckets + Int(h % bucketCount) * 4), index >= firstSymbol else { return [] }
        var result: [Range<LinkAddress>] = []
        for _ in 0..<Self.chainMax {
            guard let entry = word32(chains + Int(index - firstSymbol) * 4) else { break }
            if entry | 1 == h | 1, let function = function(index, wanted, memory) { result.append(function) }
            if entry & 1 == 1 || index == .max { break }
            index += 1
        }
        return result
    }

    private func function(_ index: UInt32, _ name: [UInt8], _ memory: some MemoryReader) -> Range<LinkAddress>? {
        guard let raw = try? memory.read(at: symbols + Int(index) * 24, count: 24) else { return nil }
        let view = Bytes(raw, name: "symbol")
        guard let offset = view.u32(0), let info = view.u8(4), let section = view.u16(6), let value = view.u64(8), let size = view.u64(16),
            info & 15 == Symbol.Kind.function.rawValue, Int(section) != Symbol.undefined, size < 1 << 31,
            let text = try? memory.read(at: strings + Int(offset), count: name.count + 1), text == name + [0]
        else { return nil }
        return LinkAddress(value)..<LinkAddress(value) + Int(size)
    }
}
