// Dynamic relocations: what the loader will write into the image, and so what a word of data means.

/// One relocation with addend. `address` is the place it writes.
public struct Relocation: Sendable, Equatable {
    // x86-64 psABI, table 4.9.
    public static let abs64: UInt32 = 1
    public static let pc32: UInt32 = 2
    public static let plt32: UInt32 = 4
    public static let copy: UInt32 = 5
    public static let globDat: UInt32 = 6
    public static let jumpSlot: UInt32 = 7
    public static let relative: UInt32 = 8
    public static let dtpmod64: UInt32 = 16
    public static let dtpoff64: UInt32 = 17
    public static let tpoff64: UInt32 = 18
    public static let irelative: UInt32 = 37

    public var address: LinkAddress
    public var type: UInt32
    /// Index into `dynamicSymbols` (or `.symtab` of a relocatable object); 0 means none.
    public var symbol: Int
    public var addend: Int64

    public init(address: LinkAddress, type: UInt32, symbol: Int, addend: Int64) {
        self.address = address
        self.type = type
        self.symbol = symbol
        self.addend = addend
    }
}

extension ELFFile {
    public static let relocationsMax = 8_000_000

    /// The entries of one SHT_RELA section.
    public static func readRela(_ bytes: Bytes, _ section: Section) throws(Failure) -> [Relocation] {
        let count = section.size / 24
        guard count <= relocationsMax else {
            throw bytes.failure("limit-exceeded", "more than \(relocationsMax) relocations.", at: 0, in: section.name)
        }
        var result: [Relocation] = []
        result.reserveCapacity(count)
        for i in 0..<count {
            let at = Int(section.offset.value) + i * 24
            let info = bytes.u64(at + 8) ?? 0
            result.append(
                Relocation(
                    address: LinkAddress(bytes.u64(at) ?? 0), type: UInt32(truncatingIfNeeded: info),
                    symbol: Int(info >> 32), addend: Int64(bitPattern: bytes.u64(at + 16) ?? 0)))
        }
        return result
    }

    static func readRelocations(_ bytes: Bytes, _ sections: [Section]) throws(Failure) -> [Relocation] {
        var result: [Relocation] = []
        for section in sections where section.isAllocated || section.address.value != 0 {
            if section.type == Section.rela { result += try readRela(bytes, section) }
            if section.type == Section.relr { result += readRelr(bytes, section, sections) }
        }
        return result
    }

    /// DT_RELR: a word with bit 0 clear is an address; with bit 0 set it is a bitmap of the 63 words that follow.
    private static func readRelr(_ bytes: Bytes, _ section: Section, _ sections: [Section]) -> [Relocation] {
        func relative(_ a: UInt64) -> Relocation {
            var addend: UInt64 = 0
            if let s = sections.first(where: { $0.isAllocated && $0.hasBytes && $0.contains(LinkAddress(a)) }) {
                addend = bytes.u64(Int(s.offset.value) + (LinkAddress(a) - s.address)) ?? 0
            }
            return Relocation(
                address: LinkAddress(a), type: Relocation.relative, symbol: 0, addend: Int64(bitPattern: addend))
        }
        var result: [Relocation] = []
        var next: UInt64 = 0
        for i in 0..<min(section.size / 8, relocationsMax / 64) {
            let word = bytes.u64(Int(section.offset.value) + i * 8) ?? 0
            if word & 1 == 0 {
                result.append(relative(word))
                next = word &+ 8
            } else {
                for bit in 1..<64 where word >> UInt64(bit) & 1 == 1 { result.append(relative(next &+ UInt64(bit - 1) * 8)) }
                next = next &+ 63 * 8
            }
        }
        return result
    }
}
