// Symbol tables: `.dynsym` and, where it was not stripped, `.symtab`; names carry their GNU version.

/// One symbol. `section` is the header index, or one of the reserved values below.
public struct Symbol: Sendable, Equatable {
    public static let undefined = 0
    public static let absolute = 0xfff1

    public enum Kind: UInt8, Sendable {
        case none = 0, object = 1, function = 2, section = 3, file = 4, common = 5, tls = 6, indirectFunction = 10
        case other = 15
    }

    public var index: Int
    public var name: String
    /// GNU symbol version (`GLIBC_2.34`), where the file has one.
    public var version: String?
    public var kind: Kind
    public var isGlobal: Bool
    public var isWeak: Bool
    public var section: Int
    public var value: LinkAddress
    public var size: Int

    public var isDefined: Bool { section != Self.undefined }
    public var isFunction: Bool { kind == .function || kind == .indirectFunction }
    /// `name@VERSION`, the key by which a dynamic symbol is the same in two builds.
    public var key: String { version.map { "\(name)@\($0)" } ?? name }
}

extension ELFFile {
    public static let symbolsMax = 4_000_000

    static func readSymbols(_ bytes: Bytes, _ sections: [Section], _ type: UInt32) throws(Failure) -> [Symbol] {
        guard let table = sections.first(where: { $0.type == type }) else { return [] }
        let count = table.size / 24
        guard count <= symbolsMax else {
            throw bytes.failure("limit-exceeded", "more than \(symbolsMax) symbols.", at: Int(table.offset.value))
        }
        guard table.link < sections.count, sections[table.link].type == Section.strtab else {
            throw bytes.failure("elf-malformed", "\(table.name) names no string table.", at: Int(table.offset.value))
        }
        let strings = sections[table.link]
        let versions = type == Section.dynsym ? readVersions(bytes, sections) : [:]
        let versionTable = type == Section.dynsym ? sections.first { $0.type == 0x6fff_ffff } : nil
        var result: [Symbol] = []
        result.reserveCapacity(count)
        for i in 0..<count {
            let at = Int(table.offset.value) + i * 24
            let nameOffset = Int(bytes.u32(at) ?? 0)
            guard nameOffset < max(1, strings.size) else {
                throw bytes.failure(
                    "elf-malformed", "name offset \(hex(nameOffset)) beyond \(strings.name) (\(hex(strings.size))).",
                    at: i * 24, in: table.name)
            }
            let info = bytes.u8(at + 4) ?? 0
            var version: String?
            if let versionTable, let v = bytes.u16(Int(versionTable.offset.value) + i * 2), i * 2 + 2 <= versionTable.size {
                version = versions[Int(v & 0x7fff)]
            }
            result.append(
                Symbol(
                    index: i, name: bytes.string(Int(strings.offset.value) + nameOffset) ?? "", version: version,
                    kind: Symbol.Kind(rawValue: info & 15) ?? .other, isGlobal: info >> 4 != 0, isWeak: info >> 4 == 2,
                    section: Int(bytes.u16(at + 6) ?? 0), value: LinkAddress(bytes.u64(at + 8) ?? 0),
                    size: Int(clamping: bytes.u64(at + 16) ?? 0)))
        }
        return result
    }

    /// Version index -> version name, from `.gnu.version_d` and `.gnu.version_r`. Malformed tables yield fewer names.
    private static func readVersions(_ bytes: Bytes, _ sections: [Section]) -> [Int: String] {
        var result: [Int: String] = [:]
        for section in sections where section.type == 0x6fff_fffd || section.type == 0x6fff_fffe {
            guard section.link < sections.count else { continue }
            let strings = Int(sections[section.link].offset.value)
            let needed = section.type == 0x6fff_fffe
            var at = Int(section.offset.value)
            let end = at + section.size
            for _ in 0..<min(section.info, 4096) {
                guard at + 16 <= end else { break }
                let auxCount = Int(bytes.u16(at + (needed ? 2 : 6)) ?? 0)
                var aux = at + Int(bytes.u32(at + (needed ? 8 : 12)) ?? 0)
                if needed {
                    for _ in 0..<min(auxCount, 4096) {
                        guard aux + 16 <= end else { break }
                        let index = Int(bytes.u16(aux + 6) ?? 0) & 0x7fff
                        result[index] = bytes.string(strings + Int(bytes.u32(aux + 8) ?? 0), limit: 1024)
                        let step = Int(bytes.u32(aux + 12) ?? 0)
                        if step == 0 { break }
                        aux += step
                    }
                } else if auxCount > 0, aux + 8 <= end {
                    // Index 1 is the file's own name, the base version of unversioned symbols.
                    let index = Int(bytes.u16(at + 4) ?? 0) & 0x7fff
                    if index > 1 { result[index] = bytes.string(strings + Int(bytes.u32(aux) ?? 0), limit: 1024) }
                }
                let step = Int(bytes.u32(at + (needed ? 12 : 16)) ?? 0)
                if step == 0 { break }
                at += step
            }
        }
        return result
    }
}
