// Writes ELF objects that readelf, nm, objdump and gdb read: relocatable ones (ET_REL), and ones whose sections have their
// addresses already (ET_EXEC). Same calls, same bytes.

/// Builds one object in memory. Sections come out in the order in which they were added.
public struct ObjectWriter: Sendable {
    /// Index of an added section, as symbols and relocations name it.
    public struct SectionRef: Hashable, Sendable { let index: Int }
    /// Index of an added symbol; not its final place in `.symtab`, where locals come first.
    public struct SymbolRef: Hashable, Sendable { let index: Int }

    struct Entry {
        var name: String, type: UInt32, flags: UInt64, alignment: Int, bytes: [UInt8], size: Int
        var address: UInt64 = 0
        var relocations: [(offset: Int, type: UInt32, symbol: SymbolRef, addend: Int64)] = []
    }
    struct Definition {
        var name: String, kind: Symbol.Kind, isGlobal: Bool, section: Int, value: UInt64, size: Int
    }

    private var entries: [Entry] = []
    private var definitions: [Definition] = []

    public init() {}

    /// Adds a section with bytes. `alignment` is a power of two. `address`: where it is in memory, for `finish(placed: true)`.
    public mutating func section(
        _ name: String, type: UInt32 = Section.progbits, flags: UInt64, alignment: Int = 16, at address: UInt64 = 0, _ bytes: [UInt8]
    ) -> SectionRef {
        entries.append(
            Entry(name: name, type: type, flags: flags, alignment: alignment, bytes: bytes, size: bytes.count, address: address))
        return SectionRef(index: entries.count)
    }

    /// Adds a section that takes memory but no file space.
    public mutating func zeroSection(_ name: String, flags: UInt64, alignment: Int, size: Int) -> SectionRef {
        entries.append(
            Entry(name: name, type: Section.nobits, flags: flags, alignment: alignment, bytes: [], size: size))
        return SectionRef(index: entries.count)
    }

    /// Adds a symbol. `section` nil makes it absolute.
    public mutating func symbol(
        _ name: String, _ kind: Symbol.Kind, in section: SectionRef?, at value: UInt64, size: Int = 0, isGlobal: Bool = false
    ) -> SymbolRef {
        definitions.append(
            Definition(
                name: name, kind: kind, isGlobal: isGlobal, section: section?.index ?? Symbol.absolute, value: value, size: size))
        return SymbolRef(index: definitions.count - 1)
    }

    /// One that somebody else defines.
    public mutating func undefinedSymbol(_ name: String) -> SymbolRef {
        definitions.append(Definition(name: name, kind: .none, isGlobal: true, section: Symbol.undefined, value: 0, size: 0))
        return SymbolRef(index: definitions.count - 1)
    }

    public mutating func relocation(
        in section: SectionRef, at offset: Int, _ type: UInt32, _ symbol: SymbolRef, addend: Int64
    ) {
        entries[section.index - 1].relocations.append((offset, type, symbol, addend))
    }

    /// The finished object. `placed`: sections have their addresses, and symbols hold addresses instead of offsets.
    public func finish(placed: Bool = false) -> [UInt8] {
        // Locals first, as the gABI asks; the order is otherwise that of the calls.
        let order = definitions.indices.filter { !definitions[$0].isGlobal } + definitions.indices.filter { definitions[$0].isGlobal }
        var place = [Int](repeating: 0, count: definitions.count)
        for (i, d) in order.enumerated() { place[d] = i + 1 }

        var strings = StringTable()
        var symtab = Array(repeating: UInt8(0), count: 24)
        for d in order.map({ definitions[$0] }) {
            symtab.append32(strings.add(d.name))
            symtab.append((d.isGlobal ? 0x10 : 0) | d.kind.rawValue)
            symtab.append(0)
            symtab.append16(UInt16(d.section))
            symtab.append64(d.value)
            symtab.append64(UInt64(d.size))
        }

        let withRelocations = entries.indices.filter { !entries[$0].relocations.isEmpty }
        let symtabIndex = entries.count + withRelocations.count + 1
        var all = entries.map { (entry: $0, link: 0, info: 0, entrySize: 0) }
        for i in withRelocations {
            var rela: [UInt8] = []
            for r in entries[i].relocations {
                rela.append64(UInt64(r.offset))
                rela.append64(UInt64(place[r.symbol.index]) << 32 | UInt64(r.type))
                rela.append64(UInt64(bitPattern: r.addend))
            }
            let entry = Entry(
                name: ".rela" + entries[i].name, type: Section.rela, flags: 0x40, alignment: 8, bytes: rela, size: rela.count)
            all.append((entry, symtabIndex, i + 1, 24))
        }
        let locals = definitions.count { !$0.isGlobal }
        all.append(
            (
                Entry(name: ".symtab", type: Section.symtab, flags: 0, alignment: 8, bytes: symtab, size: symtab.count),
                symtabIndex + 1, locals + 1, 24
            ))
        all.append(
            (
                Entry(name: ".strtab", type: Section.strtab, flags: 0, alignment: 1, bytes: strings.bytes, size: strings.bytes.count),
                0, 0, 0
            ))
        var names = StringTable()
        for s in all { _ = names.add(s.entry.name) }
        _ = names.add(".shstrtab")
        all.append(
            (
                Entry(name: ".shstrtab", type: Section.strtab, flags: 0, alignment: 1, bytes: names.bytes, size: names.bytes.count),
                0, 0, 0
            ))

        var out = [UInt8](repeating: 0, count: 64)
        var headers = [UInt8](repeating: 0, count: 64)
        for s in all {
            while out.count % s.entry.alignment != 0 { out.append(0) }
            headers.append32(names.add(s.entry.name))
            headers.append32(s.entry.type)
            headers.append64(s.entry.flags)
            headers.append64(s.entry.address)
            headers.append64(UInt64(out.count))
            headers.append64(UInt64(s.entry.size))
            headers.append32(UInt32(s.link))
            headers.append32(UInt32(s.info))
            headers.append64(UInt64(s.entry.alignment))
            headers.append64(UInt64(s.entrySize))
            out += s.entry.bytes
        }
        while out.count % 8 != 0 { out.append(0) }
        let table = out.count
        out += headers

        var head: [UInt8] = [0x7f, 0x45, 0x4c, 0x46, 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        head.append16(placed ? ELFFile.executable : ELFFile.relocatable)
        head.append16(62)  // EM_X86_64
        head.append32(1)
        head.append64(0)
        head.append64(0)
        head.append64(UInt64(table))
        head.append32(0)
        head.append16(64)
        head.append16(0)
        head.append16(0)
        head.append16(64)
        head.append16(UInt16(all.count + 1))
        head.append16(UInt16(all.count))
        out.replaceSubrange(0..<64, with: head)
        return out
    }
}

/// A string table that stores each string once.
private struct StringTable {
    var bytes: [UInt8] = [0]
    private var offsets: [String: UInt32] = ["": 0]

    mutating func add(_ s: String) -> UInt32 {
        if let known = offsets[s] { return known }
        let offset = UInt32(bytes.count)
        bytes += Array(s.utf8) + [0]
        offsets[s] = offset
        return offset
    }
}

extension [UInt8] {
    public mutating func append16(_ v: UInt16) { append(UInt8(truncatingIfNeeded: v)); append(UInt8(v >> 8)) }
    public mutating func append32(_ v: UInt32) { for i in 0..<4 { append(UInt8(truncatingIfNeeded: v >> UInt32(8 * i))) } }
    public mutating func append64(_ v: UInt64) { for i in 0..<8 { append(UInt8(truncatingIfNeeded: v >> UInt64(8 * i))) } }
}
