// `.eh_frame`: which bytes are functions, even when every name was stripped, and how their frames are unwound.
// Format: Linux Standard Base Core, "Exception Frames"; encodings: DW_EH_PE_*.

/// A common information entry: what several functions' unwind rules share.
public struct CommonInformation: Sendable, Equatable {
    /// Range in the table's bytes of the whole record, length field included.
    public var record: Range<Int>
    /// Range of the initial call frame instructions.
    public var instructions: Range<Int>
    public var codeAlignment: UInt64
    public var dataAlignment: Int64
    /// DWARF number of the column that holds the return address: 16 on x86-64.
    public var returnColumn: UInt64
    var hasAugmentation: Bool
    public var pointerEncoding: UInt8
    public var lsdaEncoding: UInt8?
    public var personality: Bool
    /// The word that holds the address of the language's routine, if it is named by a 32-bit distance to such a word, and
    /// where in the table's bytes that distance is.
    public var personalitySlot: LinkAddress?
    public var personalityField: Int?
    public var isSignalFrame: Bool
}

/// A frame description entry: one contiguous range of code.
public struct FrameDescription: Sendable, Equatable {
    public var start: LinkAddress
    public var size: Int
    /// Index into `UnwindTable.common`.
    public var common: Int
    /// Range in the table's bytes of the whole record, length field included.
    public var record: Range<Int>
    /// Range of the call frame instructions.
    public var instructions: Range<Int>
    /// Address of the language-specific data area (C++ landing pads), if it has one.
    public var lsda: LinkAddress?
    /// Where in the table's bytes the pointer to it is.
    public var lsdaField: Int?
}

public struct UnwindTable: Sendable {
    public static let framesMax = 4_000_000

    public var common: [CommonInformation] = []
    /// Sorted by start address.
    public var frames: [FrameDescription] = []
    /// What the ranges index: a whole file, or the section as it is in memory.
    public let bytes: Bytes
    private let base: Int
    private let baseAddress: LinkAddress

    /// Reads `.eh_frame`. A file without one has an empty table. Throws `eh-frame-malformed` and the cursor's failures.
    public init(_ file: ELFFile) throws(Failure) {
        guard let section = file.section(".eh_frame"), section.hasBytes else {
            try self.init(file.bytes, 0..<0, at: LinkAddress(0))
            return
        }
        let offset = Int(section.offset.value)
        try self.init(file.bytes, offset..<offset + section.size, at: section.address)
    }

    /// Reads the records in `range` of `bytes`, whose first byte has the link address `address`; a zero length ends them.
    public init(_ bytes: Bytes, _ range: Range<Int>, at address: LinkAddress) throws(Failure) {
        self.bytes = bytes
        base = range.lowerBound
        baseAddress = address
        try read(range)
    }

    /// The link address of an offset into `bytes`.
    func address(_ offset: Int) -> LinkAddress { baseAddress + (offset - base) }

    private mutating func read(_ range: Range<Int>) throws(Failure) {
        var cursor = ByteCursor(bytes, range, part: ".eh_frame")
        var commonAt: [Int: Int] = [:]

        while !cursor.isAtEnd {
            let start = cursor.offset
            let length = Int(try cursor.u32())
            if length == 0 { break }
            guard length != 0xffff_ffff else {
                throw bytes.failure("eh-frame-malformed", "64-bit records are not used on x86-64.", at: start)
            }
            let idOffset = cursor.offset
            let end = idOffset + length
            var body = ByteCursor(bytes, idOffset..<end, part: ".eh_frame")
            guard end <= cursor.end else {
                throw bytes.failure("eh-frame-malformed", "a record is longer than its section.", at: start)
            }
            let id = Int(try body.u32())
            if id == 0 {
                commonAt[start] = common.count
                common.append(try Self.readCommon(&body, start..<end, self.address))
            } else {
                guard let index = commonAt[idOffset - id] else {
                    throw bytes.failure("eh-frame-malformed", "a frame names no common entry.", at: start)
                }
                let cie = common[index]
                let address = self.address
                let pc = try Self.pointer(&body, cie.pointerEncoding, address)
                let size = try Self.pointer(&body, cie.pointerEncoding & 0x0f, address)
                var lsda: LinkAddress?, lsdaField: Int?
                if cie.hasAugmentation {
                    let length = try body.uleb()
                    let at = body.offset
                    if let encoding = cie.lsdaEncoding, encoding != 0xff {
                        let value = try Self.pointer(&body, encoding, address)
                        // A zero field means "no LSDA" whatever the encoding adds to it.
                        if bytes.u32(at) != 0 {
                            lsda = value
                            lsdaField = at
                        }
                    }
                    guard length <= UInt64(end - at) else {
                        throw bytes.failure("eh-frame-malformed", "augmentation data is longer than its record.", at: at)
                    }
                    try body.seek(max(body.offset, at + Int(length)))
                }
                guard frames.count < Self.framesMax, let bytes = Int(exactly: size.value) else {
                    throw bytes.failure("limit-exceeded", "more than \(Self.framesMax) frames.", at: start)
                }
                frames.append(
                    FrameDescription(
                        start: pc, size: bytes, common: index, record: start..<end, instructions: body.offset..<end, lsda: lsda,
                        lsdaField: lsdaField))
            }
            try cursor.seek(end)
        }
        frames.sort { $0.start < $1.start }
    }

    private static func readCommon(
        _ body: inout ByteCursor, _ record: Range<Int>, _ address: (Int) -> LinkAddress
    ) throws(Failure) -> CommonInformation {
        var result = CommonInformation(
            record: record, instructions: record.upperBound..<record.upperBound, codeAlignment: 1, dataAlignment: 1, returnColumn: 16,
            hasAugmentation: false, pointerEncoding: 0, lsdaEncoding: nil, personality: false, isSignalFrame: false)
        let version = try body.u8()
        var augmentation: [UInt8] = []
        while true {
            let c = try body.u8()
            if c == 0 { break }
            augmentation.append(c)
        }
        result.codeAlignment = try body.uleb()
        result.dataAlignment = try body.sleb()
        result.returnColumn = version == 1 ? UInt64(try body.u8()) : try body.uleb()
        result.instructions = body.offset..<record.upperBound
        guard augmentation.first == UInt8(ascii: "z") else { return result }
        result.hasAugmentation = true
        let length = try body.uleb()
        guard length <= UInt64(record.upperBound - body.offset) else {
            throw body.bytes.failure("eh-frame-malformed", "augmentation data is longer than its record.", at: body.offset)
        }
        result.instructions = body.offset + Int(length)..<record.upperBound
        for c in augmentation.dropFirst() {
            switch c {
            case UInt8(ascii: "R"): result.pointerEncoding = try body.u8()
            case UInt8(ascii: "L"): result.lsdaEncoding = try body.u8()
            case UInt8(ascii: "S"): result.isSignalFrame = true
            case UInt8(ascii: "P"):
                result.personality = true
                let encoding = try body.u8()
                let at = body.offset
                let slot = try pointer(&body, encoding, encoding & 0x70 == 0x10 ? address : { _ in LinkAddress(0) })
                if encoding == 0x9b {
                    result.personalitySlot = slot
                    result.personalityField = at
                }
            default: return result
            }
        }
        return result
    }

    /// Reads a DW_EH_PE-encoded pointer; indirect pointers yield the address of the slot.
    private static func pointer(
        _ body: inout ByteCursor, _ encoding: UInt8, _ address: (Int) -> LinkAddress
    ) throws(Failure) -> LinkAddress {
        let at = body.offset
        let raw: UInt64
        switch encoding & 0x0f {
        case 0x00, 0x04, 0x0c: raw = try body.u64()
        case 0x01: raw = try body.uleb()
        case 0x02: raw = UInt64(try body.u16())
        case 0x03: raw = UInt64(try body.u32())
        case 0x09: raw = UInt64(bitPattern: try body.sleb())
        case 0x0a: raw = UInt64(bitPattern: Int64(Int16(bitPattern: try body.u16())))
        case 0x0b: raw = UInt64(bitPattern: Int64(Int32(bitPattern: try body.u32())))
        default:
            throw body.bytes.failure("eh-frame-malformed", "pointer encoding \(hex(encoding)) is unknown.", at: at)
        }
        switch encoding & 0x70 {
        case 0x00: return LinkAddress(raw)
        case 0x10: return LinkAddress(raw &+ address(at).value)
        default:
            throw body.bytes.failure("eh-frame-malformed", "pointer base \(hex(encoding)) is not supported.", at: at)
        }
    }
}
