// How a jump is written at a patch site, and where in a function it may stand.

import ELF

/// The five bytes of `jmp rel32`.
public enum Jump {
    public static let length = 5

    /// `jmp target` as placed at `site`; nil when the distance does not fit 32 bits.
    public static func bytes(from site: RuntimeAddress, to target: RuntimeAddress) -> [UInt8]? {
        guard let distance = Int32(exactly: target - (site + length)) else { return nil }
        let d = UInt32(bitPattern: distance)
        return [0xe9] + (0..<4).map { UInt8(truncatingIfNeeded: d >> UInt32(8 * $0)) }
    }
}

/// Where a function is entered, seen as a place for a jump.
public enum PatchSite: Equatable, Sendable {
    /// Offset of the site from the function's start: 0, or 4 where ENDBR64 is kept.
    case at(offset: Int)
    case tooShort
    /// The function itself branches into the bytes that would be overwritten.
    case branchesInto(offset: Int)

    /// `roomAfter`: padding bytes that follow the function and belong to nobody.
    public static func find(in code: [Instruction], size: Int, roomAfter: Int) -> PatchSite {
        let offset = code.first?.mnemonic == Mnemonic.endbr64 ? code[0].length : 0
        guard offset + Jump.length <= size + roomAfter else { return .tooShort }
        for i in code {
            if let target = i.branchTarget, target > offset, target < offset + Jump.length { return .branchesInto(offset: i.offset) }
        }
        return .at(offset: offset)
    }
}
