// What an ELF file says about itself: header, segments, sections. x86-64, little-endian, 64-bit; anything else is refused.
// Layouts follow the System V ABI (gABI) and its x86-64 supplement; the names of constants are those of <elf.h>.

/// One program header. Offsets and sizes are in bytes and have been checked against the file.
public struct Segment: Sendable, Equatable {
    public static let load: UInt32 = 1
    public static let dynamic: UInt32 = 2
    public static let note: UInt32 = 4
    public static let tls: UInt32 = 7
    public static let relro: UInt32 = 0x6474_e552

    public var type: UInt32
    public var flags: UInt32
    public var offset: FileOffset
    public var address: LinkAddress
    public var fileSize: Int
    public var memorySize: Int

    public var isExecutable: Bool { flags & 1 != 0 }
    public var isWritable: Bool { flags & 2 != 0 }
    public func contains(_ a: LinkAddress) -> Bool { a >= address && a.value - address.value < UInt64(memorySize) }
}

/// One section header. `fileSize` is 0 for NOBITS sections.
public struct Section: Sendable, Equatable {
    public static let progbits: UInt32 = 1
    public static let symtab: UInt32 = 2
    public static let strtab: UInt32 = 3
    public static let rela: UInt32 = 4
    public static let note: UInt32 = 7
    public static let nobits: UInt32 = 8
    public static let dynsym: UInt32 = 11
    public static let relr: UInt32 = 19

    public static let write: UInt64 = 1
    public static let alloc: UInt64 = 2
    public static let exec: UInt64 = 4
    public static let tls: UInt64 = 0x400
    public static let compressed: UInt64 = 0x800

    public var index: Int
    public var name: String
    public var type: UInt32
    public var flags: UInt64
    public var address: LinkAddress
    public var offset: FileOffset
    public var size: Int
    public var link: Int
    public var info: Int
    public var entrySize: Int

    public var isAllocated: Bool { flags & Self.alloc != 0 }
    public var isWritable: Bool { flags & Self.write != 0 }
    public var isExecutable: Bool { flags & Self.exec != 0 }
    public var isTLS: Bool { flags & Self.tls != 0 }
    public var hasBytes: Bool { type != Self.nobits }
    public var isCompressed: Bool { flags & Self.compressed != 0 }
    public var end: LinkAddress { address + size }
    public func contains(_ a: LinkAddress) -> Bool { a >= address && a.value - address.value < UInt64(size) }
}

/// A parsed ELF file. All tables are read and checked by the initialiser; nothing later can fail on a bad offset.
public struct ELFFile: Sendable {
    /// Larger files are refused before they are read.
    public static let bytesMax = 1 << 30
    public static let sectionsMax = 65_536
    public static let segmentsMax = 512

    public static let executable: UInt16 = 2
    public static let sharedObject: UInt16 = 3
    public static let relocatable: UInt16 = 1

    public let bytes: Bytes
    public let type: UInt16
    public let entry: LinkAddress
    public let segments: [Segment]
    public let sections: [Section]
    public let dynamicSymbols: [Symbol]
    public let symbols: [Symbol]
    /// Dynamic relocations of loaded objects (`.rela.dyn`, `.rela.plt`, `.relr.dyn`), in file order.
    public let relocations: [Relocation]
    public let buildID: BuildID?

    public var name: String { bytes.name }
    /// `ET_EXEC`: linked at fixed addresses.
    public var isPositionDependent: Bool { type == Self.executable }

    /// Throws `not-elf`, `elf-unsupported`, `elf-malformed`, `truncated` or `limit-exceeded`, each with file and offset.
    public init(_ contents: [UInt8], name: String) throws(Failure) {
        guard contents.count <= Self.bytesMax else {
            throw Failure("limit-exceeded", "the file is larger than \(Self.bytesMax) bytes.", at: name)
        }
        let bytes = Bytes(contents, name: name)
        self.bytes = bytes
        guard contents.count >= 64, contents[0] == 0x7f, contents[1] == 0x45, contents[2] == 0x4c, contents[3] == 0x46 else {
            throw Failure("not-elf", "this is not an ELF file.", at: name)
        }
        guard contents[4] == 2, contents[5] == 1, bytes.u16(18) == 62 else {
            throw Failure(
                "elf-unsupported", "only 64-bit little-endian x86-64 ELF files are understood.", at: name)
        }
        type = bytes.u16(16) ?? 0
        entry = LinkAddress(bytes.u64(24) ?? 0)
        segments = try Self.readSegments(bytes)
        sections = try Self.readSections(bytes)
        dynamicSymbols = try Self.readSymbols(bytes, sections, Section.dynsym)
        symbols = try Self.readSymbols(bytes, sections, Section.symtab)
        relocations = type == Self.relocatable ? [] : try Self.readRelocations(bytes, sections)
        buildID = Self.readBuildID(bytes, sections, segments)
    }

    private static func readSegments(_ bytes: Bytes) throws(Failure) -> [Segment] {
        let count = Int(bytes.u16(56) ?? 0)
        guard count > 0 else { return [] }
        guard count <= segmentsMax else {
            throw bytes.failure("limit-exceeded", "more than \(segmentsMax) program headers.", at: 56)
        }
        guard let table = Int(exactly: bytes.u64(32) ?? 0), bytes.u16(54) == 56, bytes.holds(table, count * 56) else {
            throw bytes.failure("elf-malformed", "the program header table lies outside the file.", at: 32)
        }
        var result: [Segment] = []
        for i in 0..<count {
            let at = table + i * 56
            let offset = bytes.u64(at + 8) ?? 0, fileSize = bytes.u64(at + 32) ?? 0, memorySize = bytes.u64(at + 40) ?? 0
            guard let f = Int(exactly: fileSize), let o = Int(exactly: offset), let m = Int(exactly: memorySize),
                m < 1 << 40, bytes.holds(o, f) || bytes.u32(at) != Segment.load
            else {
                throw bytes.failure("elf-malformed", "program header \(i) points outside the file.", at: at)
            }
            result.append(
                Segment(
                    type: bytes.u32(at) ?? 0, flags: bytes.u32(at + 4) ?? 0, offset: FileOffset(offset),
                    address: LinkAddress(bytes.u64(at + 16) ?? 0), fileSize: bytes.holds(o, f) ? f : 0, memorySize: m))
        }
        return result
    }

    private static func readSections(_ bytes: Bytes) throws(Failure) -> [Section] {
        let tableOffset = bytes.u64(40) ?? 0
        guard tableOffset != 0 else { return [] }
        guard let table = Int(exactly: tableOffset), bytes.u16(58) == 64, bytes.holds(table, 64) else {
            throw bytes.failure("elf-malformed", "the section header table lies outside the file.", at: 40)
        }
        var count = Int(bytes.u16(60) ?? 0)
        if count == 0 { count = Int(exactly: bytes.u64(table + 32) ?? 0) ?? Int.max }
        var namesIndex = Int(bytes.u16(62) ?? 0)
        if namesIndex == 0xffff { namesIndex = Int(bytes.u32(table + 40) ?? 0) }
        guard count <= sectionsMax else {
            throw bytes.failure("limit-exceeded", "more than \(sectionsMax) sections.", at: 60)
        }
        guard bytes.holds(table, count * 64) else {
            throw bytes.failure("elf-malformed", "the section header table is longer than the file.", at: 60)
        }
        var result: [Section] = []
        for i in 0..<count {
            let at = table + i * 64
            let type = bytes.u32(at + 4) ?? 0
            guard let offset = Int(exactly: bytes.u64(at + 24) ?? 0), let size = Int(exactly: bytes.u64(at + 32) ?? 0),
                size < 1 << 40, type == Section.nobits || type == 0 || bytes.holds(offset, size)
            else {
                throw bytes.failure("elf-malformed", "section \(i) points outside the file.", at: at)
            }
            result.append(
                Section(
                    index: i, name: "", type: type, flags: bytes.u64(at + 8) ?? 0,
                    address: LinkAddress(bytes.u64(at + 16) ?? 0), offset: FileOffset(UInt64(offset)), size: size,
                    link: Int(bytes.u32(at + 40) ?? 0), info: Int(bytes.u32(at + 44) ?? 0),
                    entrySize: Int(clamping: bytes.u64(at + 56) ?? 0)))
        }
        guard namesIndex < result.count, result[namesIndex].type != Section.nobits else { return result }
        let names = result[namesIndex]
        for i in result.indices {
            let offset = Int(bytes.u32(table + i * 64) ?? 0)
            guard offset < names.size else {
                throw bytes.failure(
                    "elf-malformed", "section \(i): name offset \(hex(offset)) beyond the string table (\(hex(names.size))).",
                    at: table + i * 64)
            }
            result[i].name = bytes.string(Int(names.offset.value) + offset, limit: 1024) ?? ""
        }
        return result
    }

    // MARK: Looking things up

    public func section(_ name: String) -> Section? { sections.first { $0.name == name } }

    /// The allocated section whose memory holds `a`; TLS templates are not memory and are left out.
    public func section(at a: LinkAddress) -> Section? {
        sections.first { $0.isAllocated && !($0.isTLS && !$0.hasBytes) && $0.contains(a) }
    }

    public func contents(_ section: Section) -> ArraySlice<UInt8> {
        guard section.hasBytes else { return [] }
        return bytes.slice(Int(section.offset.value), section.size) ?? []
    }

    /// Bytes as the loader maps them before relocation; nil when any of them is not backed by the file.
    public func read(_ a: LinkAddress, _ count: Int) -> ArraySlice<UInt8>? {
        for s in segments where s.type == Segment.load && s.contains(a) {
            let at = a - s.address
            guard count >= 0, at + count <= s.fileSize else { return nil }
            return bytes.slice(Int(s.offset.value) + at, count)
        }
        return nil
    }

    /// The NUL-terminated text at `a`, without the NUL; nil when it does not end within `limit` bytes or is not in the file.
    public func text(at a: LinkAddress, limit: Int) -> String? {
        for s in segments where s.type == Segment.load && s.contains(a) {
            let at = a - s.address
            guard at < s.fileSize else { return nil }
            return bytes.string(Int(s.offset.value) + at, limit: min(limit, s.fileSize - at))
        }
        return nil
    }

    public func u64(at a: LinkAddress) -> UInt64? {
        guard let raw = read(a, 8) else { return nil }
        return raw.reversed().reduce(0) { $0 << 8 | UInt64($1) }
    }
}
