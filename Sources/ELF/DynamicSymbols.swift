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
    /// One 16-bit version index per symbol; nil where nothing is versioned.
    private let versions: RuntimeAddress?
    private let versionNames: [UInt16: String]
    /// Names of the objects that it needs, and its own, as the linker wrote them.
    public let needed: [String]
    public let soname: String?

    /// Nil when the object has no GNU hash table, or nothing there makes sense. `extent`: the object's mapped range.
    public init?(_ memory: some MemoryReader, bias: LoadBias, segments: [Segment], extent: Range<RuntimeAddress>) {
        guard let dynamic = segments.first(where: { $0.type == Segment.dynamic }) else { return nil }
        let count = min(dynamic.memorySize / 16, Self.entriesMax)
        guard let raw = try? memory.read(at: bias.runtime(dynamic.address), count: count * 16) else { return nil }
        let view = Bytes(raw, name: "dynamic section")
        var found: [UInt64: RuntimeAddress] = [:], neededOffsets: [UInt64] = [], values: [UInt64: UInt64] = [:]
        for i in 0..<count {
            guard let tag = view.u64(i * 16), let value = view.u64(i * 16 + 8), tag != 0 else { break }
            // glibc replaces link addresses by run addresses there; other loaders do not.
            if tag == 1 { neededOffsets.append(value) }
            values[tag] = value
            let placed = RuntimeAddress(value)
            found[tag] = extent.contains(placed) ? placed : bias.runtime(LinkAddress(value))
        }
        guard let symbols = found[6], let strings = found[5], let hash = found[0x6fff_fef5],
            let head = try? memory.read(at: hash, count: 16)
        else { return nil }
        let words = Bytes(head, name: "hash table")
        func text(_ at: RuntimeAddress) -> String? {
            guard let raw = try? memory.read(at: at, count: Self.nameMax), let end = raw.firstIndex(of: 0) else { return nil }
            return String(decoding: raw[..<end], as: UTF8.self)
        }
        needed = neededOffsets.compactMap { Int(exactly: $0).flatMap { text(strings + $0) } }
        soname = values[14].flatMap { Int(exactly: $0) }.flatMap { text(strings + $0) }
        versions = found[0x6fff_fff0]
        var names: [UInt16: String] = [:]
        if var at = found[0x6fff_fffc], let count = values[0x6fff_fffd] {
            for _ in 0..<min(count, UInt64(Self.entriesMax)) {
                guard let raw = try? memory.read(at: at, count: 20) else { break }
                let view = Bytes(raw, name: "version definition")
                guard let index = view.u16(4), let aux = view.u32(12), let next = view.u32(16) else { break }
                if let word = try? memory.read(at: at + Int(aux), count: 4), let name = Bytes(word, name: "").u32(0) {
                    names[index & 0x7fff] = text(strings + Int(name))
                }
                if next == 0 { break }
                at = at + Int(next)
            }
        }
        versionNames = names
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

    /// A symbol that the object defines.
    public struct Definition: Hashable, Sendable {
        public var kind: Symbol.Kind
        public var value: LinkAddress
        public var size: Int
        /// Nil where the object's symbols are not versioned, or this one belongs to no version.
        public var version: String?
    }

    /// Link addresses of every function with this name that the object defines, one for each symbol version.
    public func functions(named name: String, _ memory: some MemoryReader) -> [Range<LinkAddress>] {
        definitions(named: name, memory).filter { $0.kind == .function }.map { $0.value..<$0.value + $0.size }
    }

    /// Every definition of this name, one for each symbol version.
    public func definitions(named name: String, _ memory: some MemoryReader) -> [Definition] {
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
        var result: [Definition] = []
        for _ in 0..<Self.chainMax {
            guard let entry = word32(chains + Int(index - firstSymbol) * 4) else { break }
            if entry | 1 == h | 1, let definition = definition(index, wanted, memory) { result.append(definition) }
            if entry & 1 == 1 || index == .max { break }
            index += 1
        }
        return result
    }

    private func definition(_ index: UInt32, _ name: [UInt8], _ memory: some MemoryReader) -> Definition? {
        guard let raw = try? memory.read(at: symbols + Int(index) * 24, count: 24) else { return nil }
        let view = Bytes(raw, name: "symbol")
        guard let offset = view.u32(0), let info = view.u8(4), let section = view.u16(6), let value = view.u64(8), let size = view.u64(16),
            Int(section) != Symbol.undefined, size < 1 << 31, value < 1 << 48,
            let text = try? memory.read(at: strings + Int(offset), count: name.count + 1), text == name + [0]
        else { return nil }
        var version: String?
        if let versions, let word = try? memory.read(at: versions + Int(index) * 2, count: 2), let v = Bytes(word, name: "").u16(0) {
            // Index 1 is the object's own name: symbols of no version.
            if v & 0x7fff > 1 { version = versionNames[v & 0x7fff] ?? "" }
        }
        return Definition(kind: Symbol.Kind(rawValue: info & 15) ?? .other, value: LinkAddress(value), size: Int(size), version: version)
    }
}
