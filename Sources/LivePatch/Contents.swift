// The parts of a live patch before and after they are a file: code, data, symbols, relocations, replacements.

import ELF
import MachineCode

/// A part of a patch that becomes memory in the target.
public enum Part: Int, CaseIterable, Sendable {
    case text, readOnly, unwind, relro, data, zero

    /// Section name in the patch file.
    public var section: String {
        switch self {
        case .text: ".text"
        case .readOnly: ".rodata"
        case .unwind: ".eh_frame"
        case .relro: ".data.rel.ro"
        case .data: ".data"
        case .zero: ".bss"
        }
    }
}

/// Where a patch symbol is: in the patch, at a link address of the old build, or in another object of the process.
public enum SymbolPlace: Hashable, Sendable {
    case part(Part, offset: Int)
    case old(LinkAddress)
    /// Exported by another loaded object; the symbol's name is `name@VERSION`.
    case imported
}

public struct PatchSymbol: Hashable, Sendable {
    public var name: String
    public var place: SymbolPlace
    public var isFunction: Bool
    public var size: Int

    public init(_ name: String, _ place: SymbolPlace, isFunction: Bool = false, size: Int = 0) {
        self.name = name
        self.place = place
        self.isFunction = isFunction
        self.size = size
    }
}

/// R_X86_64_PC32 (S + A - P, 32 bits) or R_X86_64_64 (S + A).
public struct PatchRelocation: Hashable, Sendable {
    public enum Kind: Sendable { case pc32, abs64 }
    public var part: Part
    public var offset: Int
    public var kind: Kind
    /// Index into the symbols.
    public var symbol: Int
    public var addend: Int64

    public init(_ part: Part, at offset: Int, _ kind: Kind, symbol: Int, addend: Int64) {
        self.part = part
        self.offset = offset
        self.kind = kind
        self.symbol = symbol
        self.addend = addend
    }
}

/// One old function and what takes its place. The name and the reason are in the manifest, at the same index.
public struct Replacement: Hashable, Sendable {
    /// Bytes kept from the old site on: the instructions under the jump lie in them whole, however long they are.
    public static let siteBytes = 24

    /// Entry in the old build; nil for a function that only the new build has.
    public var old: LinkAddress?
    public var oldSize: Int
    /// Offset and size in the patch's text.
    public var newOffset: Int
    public var newSize: Int
    public var isHooked: Bool
    /// Offset of the jump from `old`: 0, or 4 behind ENDBR64.
    public var siteOffset: Int
    /// The old build's padding right before the function, `Jump.length` bytes, if the site is a two-byte jump to a bridge
    /// there; empty if it is a five-byte jump.
    public var bridgeBytes: [UInt8]
    /// The old build's bytes at the site: `siteBytes` of them.
    public var oldSiteBytes: [UInt8]
    /// SHA-256 of the old function's bytes.
    public var oldHash: [UInt8]

    public init(
        old: LinkAddress?, oldSize: Int, newOffset: Int, newSize: Int, isHooked: Bool, siteOffset: Int, bridgeBytes: [UInt8] = [],
        oldSiteBytes: [UInt8], oldHash: [UInt8]
    ) {
        self.old = old
        self.oldSize = oldSize
        self.newOffset = newOffset
        self.newSize = newSize
        self.isHooked = isHooked
        self.siteOffset = siteOffset
        self.bridgeBytes = bridgeBytes
        self.oldSiteBytes = oldSiteBytes
        self.oldHash = oldHash
    }

    /// Bytes of the jump that replaces the function's first instructions.
    public var jumpLength: Int { bridgeBytes.isEmpty ? Jump.length : Jump.shortLength }
}

/// Everything in a patch but its identity.
public struct PatchContents: Sendable {
    public var manifest: Manifest
    /// Bytes of each part but `.zero`, by `Part.rawValue`.
    public var bytes: [[UInt8]]
    public var zeroSize: Int
    public var symbols: [PatchSymbol]
    public var relocations: [PatchRelocation]
    public var replacements: [Replacement]

    public init(manifest: Manifest) {
        self.manifest = manifest
        bytes = Array(repeating: [], count: Part.allCases.count)
        zeroSize = 0
        symbols = []
        relocations = []
        replacements = []
    }

    public subscript(part: Part) -> [UInt8] {
        get { bytes[part.rawValue] }
        set { bytes[part.rawValue] = newValue }
    }

    /// What the process must lend, as `name@VERSION`.
    public var imports: [String] { symbols.filter { $0.place == .imported }.map(\.name) }

    public func size(_ part: Part) -> Int { part == .zero ? zeroSize : self[part].count }
}
