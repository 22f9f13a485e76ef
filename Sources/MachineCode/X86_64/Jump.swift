// How a jump is written at a patch site, and where in a function it may stand.

import ELF

/// The five bytes of `jmp rel32`, and the two of `jmp rel8`.
public enum Jump {
    public static let length = 5
    public static let shortLength = 2

    /// `jmp target` as placed at `site`; nil when the distance does not fit 32 bits.
    public static func bytes(from site: RuntimeAddress, to target: RuntimeAddress) -> [UInt8]? {
        guard let distance = Int32(exactly: target - (site + length)) else { return nil }
        let d = UInt32(bitPattern: distance)
        return [0xe9] + (0..<4).map { UInt8(truncatingIfNeeded: d >> UInt32(8 * $0)) }
    }

    /// From a site `offset` bytes into a function to the bridge that ends where the function begins.
    public static func shortBytes(toBridgeBeforeFunctionFrom offset: Int) -> [UInt8] {
        [0xeb, UInt8(truncatingIfNeeded: -(length + shortLength + offset))]
    }
}

/// Where a function is entered, seen as a place for a jump.
public enum PatchSite: Equatable, Sendable {
    /// Offset of the site from the function's start: 0, or 4 where ENDBR64 is kept. `isBridged`: a two-byte jump there, to a
    /// five-byte one in the padding before the function.
    case at(offset: Int, isBridged: Bool)
    case tooShort
    /// The function itself branches into the bytes that would be overwritten.
    case branchesInto(offset: Int)

    /// The best form: five bytes over one instruction; two bytes over one instruction and a bridge; five bytes over several,
    /// between which a thread may stand. `roomBefore`: padding in front of the function that nothing refers to and nothing
    /// runs into; `roomAfter`: padding that follows it. Neither belongs to anybody.
    public static func find(in code: [Instruction], size: Int, roomBefore: Int, roomAfter: Int) -> PatchSite {
        let offset = code.first?.mnemonic == Mnemonic.endbr64 ? code[0].length : 0
        let first = code.first { $0.offset == offset }?.length ?? 0
        func branch(into length: Int) -> Int? {
            code.first { i in i.branchTarget.map { $0 > offset && $0 < offset + length } ?? false }?.offset
        }
        if first < Jump.length, first >= Jump.shortLength, roomBefore >= Jump.length, branch(into: Jump.shortLength) == nil {
            return .at(offset: offset, isBridged: true)
        }
        guard offset + Jump.length <= size + roomAfter else { return .tooShort }
        if let at = branch(into: Jump.length) { return .branchesInto(offset: at) }
        return .at(offset: offset, isBridged: false)
    }
}
