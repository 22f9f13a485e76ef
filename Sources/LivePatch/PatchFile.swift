// The patch file: an ELF relocatable object, so that readelf, nm and objdump read it. Format: docs/patch-format.md.

import Crypto
import ELF
import Foundation
import MachineCode

/// SHA-256 of a patch file: the name of the patch everywhere.
public struct PatchID: Hashable, Sendable, CustomStringConvertible {
    public let bytes: [UInt8]

    /// Nil unless there are 32 bytes.
    public init?(bytes: [UInt8]) {
        guard bytes.count == 32 else { return nil }
        self.bytes = bytes
    }
    public init(of file: [UInt8]) { bytes = sha256(file[...]) }
    public var description: String { hexDigits(bytes) }
    /// The first twelve digits: what people type.
    public var short: String { String(description.prefix(12)) }
}

public func sha256(_ bytes: ArraySlice<UInt8>) -> [UInt8] { Array(SHA256.hash(data: bytes)) }

/// A patch read from a file, checked throughout.
public struct LivePatch: Sendable {
    public let id: PatchID
    public let buildID: BuildID
    public let contents: PatchContents
    public var manifest: Manifest { contents.manifest }
}

enum PatchFormat {
    static let replacements = ".fother.replacements"
    static let manifest = ".fother.manifest"
    static let entrySize = 104
    static let fileMax = 256 << 20
    static let partMax = 64 << 20
    static let replacementsMax = 65_536
    static let symbolsMax = 1 << 20
    static let relocationsMax = 1 << 22
    static let importsMax = 1024
    static let importNameMax = 4096
    static let flagHooked: UInt32 = 1
    static let flagHasOld: UInt32 = 2
    static let flagBridged: UInt32 = 4
}

// MARK: Writing

extension PatchContents {
    /// The patch file. The same contents give the same bytes.
    public func encode() throws(Failure) -> [UInt8] {
        var writer = ObjectWriter()
        let flags: [UInt64] = [6, 2, 2, 3, 3, 3]
        var sections: [Part: ObjectWriter.SectionRef] = [:]
        for part in Part.allCases {
            let alignment = part == .unwind ? 8 : 64
            sections[part] =
                part == .zero
                ? writer.zeroSection(part.section, flags: 3, alignment: alignment, size: zeroSize)
                : writer.section(part.section, flags: flags[part.rawValue], alignment: alignment, self[part])
        }
        let table = writer.section(PatchFormat.replacements, flags: 0, alignment: 8, encodeReplacements())
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .prettyPrinted, .withoutEscapingSlashes]
        guard let json = try? encoder.encode(manifest) else {
            throw Failure("manifest-malformed", "the manifest cannot be written as JSON.")
        }
        _ = writer.section(PatchFormat.manifest, flags: 0, alignment: 1, Array(json) + [0x0a])

        var refs: [ObjectWriter.SymbolRef] = []
        for s in symbols {
            switch s.place {
            case .part(let part, let offset):
                refs.append(
                    writer.symbol(
                        s.name, s.isFunction ? .function : .object, in: sections[part], at: UInt64(offset), size: s.size,
                        isGlobal: s.isFunction))
            case .old(let address):
                refs.append(writer.symbol(s.name, .none, in: nil, at: address.value, size: 0))
            case .imported:
                refs.append(writer.undefinedSymbol(s.name))
            }
        }
        let start = writer.symbol(".text", .section, in: sections[.text], at: 0)
        for r in relocations {
            guard let section = sections[r.part], refs.indices.contains(r.symbol) else {
                throw Failure("patch-malformed", "a relocation names symbol \(r.symbol), which is not there.")
            }
            writer.relocation(
                in: section, at: r.offset, r.kind == .pc32 ? Relocation.pc32 : Relocation.abs64, refs[r.symbol], addend: r.addend)
        }
        for (i, r) in replacements.enumerated() {
            writer.relocation(
                in: table, at: i * PatchFormat.entrySize + 16, Relocation.abs64, start, addend: Int64(r.newOffset))
        }
        return writer.finish()
    }

    private func encodeReplacements() -> [UInt8] {
        var out: [UInt8] = []
        for r in replacements {
            out.append64(r.old?.value ?? 0)
            out.append64(UInt64(r.oldSize))
            out.append64(0)  // new address: relocated
            out.append64(UInt64(r.newSize))
            out.append32(
                (r.isHooked ? PatchFormat.flagHooked : 0) | (r.old != nil ? PatchFormat.flagHasOld : 0)
                    | (r.bridgeBytes.isEmpty ? 0 : PatchFormat.flagBridged))
            out.append32(UInt32(r.siteOffset))
            out += padded(r.oldSiteBytes, to: Replacement.siteBytes)
            out += padded(r.oldHash, to: 32)
            out += padded(r.bridgeBytes, to: 8)
        }
        return out
    }

    private func padded(_ bytes: [UInt8], to count: Int) -> [UInt8] {
        Array(bytes.prefix(count)) + [UInt8](repeating: 0, count: max(0, count - bytes.count))
    }
}

// MARK: Reading

extension LivePatch {
    /// Reads and checks a patch file. Throws `patch-malformed` with the place, or the ELF reader's failures.
    public init(parsing bytes: [UInt8], name: String) throws(Failure) {
        func malformed(_ sentence: String, _ section: String, _ offset: Int = 0) -> Failure {
            Failure(
                "patch-malformed", sentence, at: "\(name): \(section)+\(hex(offset))",
                remedy: "Fetch or build the patch again.")
        }
        guard bytes.count <= PatchFormat.fileMax else { throw malformed("the patch file is too large.", "file") }
        let file = try ELFFile(bytes, name: name)
        guard file.type == ELFFile.relocatable, let manifestSection = file.section(PatchFormat.manifest),
            let table = file.section(PatchFormat.replacements)
        else { throw Failure("not-a-patch", "this ELF file is not a live patch.", at: name, remedy: "Make one with: fother build OLD NEW") }
        guard manifestSection.size <= Manifest.bytesMax,
            let manifest = try? JSONDecoder().decode(Manifest.self, from: Data(file.contents(manifestSection)))
        else { throw malformed("the manifest is not readable.", PatchFormat.manifest) }
        guard manifest.schema == Manifest.schema else {
            throw Failure(
                "patch-version", "the patch has format \(manifest.schema); this tool reads \(Manifest.schema).", at: name,
                remedy: "Build it again with this version of fother.")
        }
        guard let buildID = BuildID(manifest.buildID) else { throw malformed("the build ID is not hexadecimal.", PatchFormat.manifest) }

        var contents = PatchContents(manifest: manifest)
        var parts: [Int: Part] = [:]
        for part in Part.allCases {
            guard let section = file.section(part.section) else { throw malformed("the section is missing.", part.section) }
            guard section.size <= PatchFormat.partMax else { throw malformed("the section is too large.", part.section) }
            parts[section.index] = part
            if part == .zero { contents.zeroSize = section.size } else { contents[part] = Array(file.contents(section)) }
        }

        guard file.symbols.count <= PatchFormat.symbolsMax else { throw malformed("too many symbols.", ".symtab") }
        for s in file.symbols {
            if s.section == Symbol.absolute {
                contents.symbols.append(PatchSymbol(s.name, .old(s.value)))
            } else if let part = parts[s.section] {
                guard let offset = Int(exactly: s.value.value), offset <= contents.size(part) else {
                    throw malformed("symbol \(s.index) lies outside \(part.section).", ".symtab", s.index * 24)
                }
                contents.symbols.append(PatchSymbol(s.name, .part(part, offset: offset), isFunction: s.isFunction, size: s.size))
            } else if s.index == 0 {
                contents.symbols.append(PatchSymbol("", .old(LinkAddress(0))))
            } else if s.section == Symbol.undefined, !s.name.isEmpty, s.name.utf8.count <= PatchFormat.importNameMax {
                contents.symbols.append(PatchSymbol(s.name, .imported))
                guard contents.imports.count <= PatchFormat.importsMax else { throw malformed("too many imports.", ".symtab") }
            } else {
                throw malformed("symbol \(s.index) is nameless or in an unknown section.", ".symtab", s.index * 24)
            }
        }

        for part in Part.allCases where part != .zero {
            guard let section = file.section(".rela" + part.section) else { continue }
            for r in try ELFFile.readRela(file.bytes, section) {
                let width = r.type == Relocation.pc32 ? 4 : 8
                guard r.type == Relocation.pc32 || r.type == Relocation.abs64, r.symbol > 0, r.symbol < contents.symbols.count,
                    let offset = Int(exactly: r.address.value), offset <= contents[part].count - width
                else {
                    throw malformed(
                        "a relocation is of no known kind or outside its section.", section.name, Int(clamping: r.address.value))
                }
                guard width == 8 || contents.symbols[r.symbol].place != .imported else {
                    throw malformed("a distance to an import need not fit.", section.name, offset)
                }
                contents.relocations.append(
                    PatchRelocation(part, at: offset, width == 4 ? .pc32 : .abs64, symbol: r.symbol, addend: r.addend))
            }
        }
        guard contents.relocations.count <= PatchFormat.relocationsMax else { throw malformed("too many relocations.", "file") }
        contents.replacements = try Self.readReplacements(file, table, contents, malformed)
        self.contents = contents
        self.buildID = buildID
        id = PatchID(of: bytes)
    }

    private static func readReplacements(
        _ file: ELFFile, _ table: Section, _ contents: PatchContents, _ malformed: (String, String, Int) -> Failure
    ) throws(Failure) -> [Replacement] {
        let count = table.size / PatchFormat.entrySize
        guard table.size % PatchFormat.entrySize == 0, count <= PatchFormat.replacementsMax,
            count == contents.manifest.functions.count
        else { throw malformed("the table and the manifest disagree about the functions.", table.name, 0) }
        var newOffsets: [Int: Int] = [:]
        if let rela = file.section(".rela" + table.name) {
            for r in try ELFFile.readRela(file.bytes, rela) {
                guard let at = Int(exactly: r.address.value), at % PatchFormat.entrySize == 16, r.symbol > 0,
                    r.symbol < contents.symbols.count, case .part(.text, let base) = contents.symbols[r.symbol].place,
                    let addend = Int(exactly: r.addend), addend >= 0, addend <= PatchFormat.partMax
                else { throw malformed("a new address is not in .text.", table.name, Int(clamping: r.address.value)) }
                newOffsets[at / PatchFormat.entrySize] = base + addend
            }
        }
        var result: [Replacement] = []
        let text = contents[.text].count
        for i in 0..<count {
            let at = Int(table.offset.value) + i * PatchFormat.entrySize
            let flags = file.bytes.u32(at + 32) ?? 0
            let hasOld = flags & PatchFormat.flagHasOld != 0, hooked = flags & PatchFormat.flagHooked != 0
            let bridged = flags & PatchFormat.flagBridged != 0
            let place = i * PatchFormat.entrySize
            guard let oldSize = Int(exactly: file.bytes.u64(at + 8) ?? 0), oldSize < 1 << 31,
                let newSize = Int(exactly: file.bytes.u64(at + 24) ?? 0), let newOffset = newOffsets[i],
                newSize <= text, newOffset <= text - newSize
            else { throw malformed("replacement \(i) lies outside .text.", table.name, place) }
            let siteOffset = Int(file.bytes.u32(at + 36) ?? 0)
            guard siteOffset == 0 || siteOffset == 4, !hooked || hasOld, !bridged || hooked else {
                throw malformed("replacement \(i) has an impossible patch site.", table.name, place)
            }
            let function = contents.manifest.functions[i]
            let old = hasOld ? LinkAddress(file.bytes.u64(at) ?? 0) : nil
            guard function.oldAddress == old?.value ?? 0, function.newSize == newSize, function.isHooked == hooked else {
                throw malformed("replacement \(i) and the manifest disagree.", table.name, place)
            }
            result.append(
                Replacement(
                    old: old, oldSize: oldSize, newOffset: newOffset, newSize: newSize, isHooked: hooked, siteOffset: siteOffset,
                    bridgeBytes: bridged ? Array(file.bytes.slice(at + 96, Jump.length) ?? []) : [],
                    oldSiteBytes: Array(file.bytes.slice(at + 40, 24) ?? []), oldHash: Array(file.bytes.slice(at + 64, 32) ?? [])))
        }
        return result
    }
}
