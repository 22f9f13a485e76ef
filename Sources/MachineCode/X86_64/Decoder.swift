// Decodes x86-64 with Zydis. The only file of the room that hands memory to C.

import CZydis

/// Operations that rules elsewhere name.
public enum Mnemonic {
    public static let endbr64 = fother_mnemonic_endbr64()
    public static let nop = fother_mnemonic_nop()
    public static let int3 = fother_mnemonic_int3()
    public static let mov = fother_mnemonic_mov()
    public static let movsxd = fother_mnemonic_movsxd()
    public static let add = fother_mnemonic_add()
    public static let lea = fother_mnemonic_lea()
    public static let cmp = fother_mnemonic_cmp()
    public static let sub = fother_mnemonic_sub()
    public static let push = fother_mnemonic_push()
}

/// The result of decoding a range of code from its first byte to its last.
public struct DecodedCode: Sendable {
    public var instructions: [Instruction] = []
    /// Offset of the first byte that is no instruction, if the range is not code throughout.
    public var undecodedAt: Int?
}

/// Decodes `code` linearly. Stops at the first byte that is no instruction and says where.
public func decode(_ code: ArraySlice<UInt8>) -> DecodedCode {
    var result = DecodedCode()
    result.instructions.reserveCapacity(code.count / 4)
    unsafe code.withUnsafeBufferPointer { buffer in
        guard let base = buffer.baseAddress else { return }
        var raw = fother_instruction()
        var at = 0
        while at < buffer.count {
            guard unsafe fother_decode(base + at, buffer.count - at, &raw) == 1, raw.length > 0 else {
                result.undecodedAt = at
                return
            }
            result.instructions.append(Instruction(raw, at: at))
            at += Int(raw.length)
        }
    }
    return result
}

/// Intel-syntax text of the first instruction in `code`, as if it were loaded at `address`; nil if it is none.
public func disassemble(_ code: ArraySlice<UInt8>, at address: UInt64) -> String? {
    var text = [CChar](repeating: 0, count: 256)
    let done = unsafe code.withUnsafeBufferPointer { bytes in
        unsafe text.withUnsafeMutableBufferPointer { room in
            guard let from = bytes.baseAddress, let to = room.baseAddress else { return Int32(0) }
            return unsafe fother_format(from, bytes.count, address, to, room.count)
        }
    }
    guard done == 1 else { return nil }
    return String(decoding: text.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
}

extension Instruction {
    fileprivate init(_ raw: fother_instruction, at offset: Int) {
        func register(_ n: UInt8) -> Register? { n == 0xff ? nil : Register(n) }
        self.offset = offset
        length = Int(raw.length)
        mnemonic = raw.mnemonic
        flow = Flow(rawValue: raw.flow) ?? .next
        isIndirect = raw.indirect != 0
        branch =
            raw.branch_offset == 0
            ? nil : Field(offset: Int(raw.branch_offset), size: Int(raw.branch_size), distance: Int(raw.branch_value))
        ripRelative =
            raw.rip_relative == 0
            ? nil : Field(offset: Int(raw.disp_offset), size: Int(raw.disp_size), distance: Int(raw.disp_value))
        let hasMemory = raw.rip_relative == 0 && (raw.mem_bytes != 0 || raw.address_only != 0 || raw.base != 0xff)
        memory =
            hasMemory
            ? Memory(
                base: register(raw.base), index: register(raw.index), scale: Int(raw.scale),
                displacement: Int(raw.disp_value), displacementOffset: Int(raw.disp_offset),
                displacementSize: Int(raw.disp_size)) : nil
        immediate =
            raw.imm_offset == 0
            ? nil : Immediate(offset: Int(raw.imm_offset), size: Int(raw.imm_size), value: raw.imm_value)
        takesAddress = raw.address_only != 0
        writesMemory = raw.mem_write != 0
        accessBytes = Int(raw.mem_bytes)
        usesSegment = raw.segment != 0
        destination = register(raw.destination)
        source = register(raw.source)
        reads = raw.reads
        writes = raw.writes
    }
}
