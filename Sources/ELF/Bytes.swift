// Checked little-endian reads over untrusted bytes. Nothing here traps: out of range is nil or a `Failure` with its place.

/// An immutable run of bytes with a name, so that every complaint about it can say where.
public struct Bytes: Sendable {
    public let name: String
    public let storage: [UInt8]

    public init(_ storage: [UInt8], name: String) {
        self.storage = storage
        self.name = name
    }

    @inlinable public var count: Int { storage.count }

    /// True when `offset ..< offset + count` lies inside, without overflow.
    @inlinable public func holds(_ offset: Int, _ count: Int) -> Bool {
        offset >= 0 && count >= 0 && count <= storage.count && offset <= storage.count - count
    }

    @inlinable public func u8(_ offset: Int) -> UInt8? { holds(offset, 1) ? storage[offset] : nil }

    @inlinable public func u16(_ offset: Int) -> UInt16? {
        guard holds(offset, 2) else { return nil }
        return UInt16(storage[offset]) | UInt16(storage[offset + 1]) << 8
    }

    @inlinable public func u32(_ offset: Int) -> UInt32? {
        guard holds(offset, 4) else { return nil }
        return UInt32(storage[offset]) | UInt32(storage[offset + 1]) << 8 | UInt32(storage[offset + 2]) << 16
            | UInt32(storage[offset + 3]) << 24
    }

    @inlinable public func u64(_ offset: Int) -> UInt64? {
        guard let low = u32(offset), let high = u32(offset + 4) else { return nil }
        return UInt64(low) | UInt64(high) << 32
    }

    @inlinable public func i32(_ offset: Int) -> Int32? { u32(offset).map { Int32(bitPattern: $0) } }

    /// The bytes `offset ..< offset + count`, or nil when they are not all there.
    @inlinable public func slice(_ offset: Int, _ count: Int) -> ArraySlice<UInt8>? {
        holds(offset, count) ? storage[offset..<offset + count] : nil
    }

    public func slice(_ range: Range<Int>) -> ArraySlice<UInt8>? { slice(range.lowerBound, range.count) }

    /// The NUL-terminated string at `offset`, without the NUL; nil when it does not end within `limit` bytes.
    public func string(_ offset: Int, limit: Int = 65_536) -> String? {
        guard offset >= 0, offset < count else { return nil }
        let end = min(count, offset + min(limit, count - offset))
        guard let nul = storage[offset..<end].firstIndex(of: 0) else { return nil }
        return String(decoding: storage[offset..<nul], as: UTF8.self)
    }

    public func failure(_ code: String, _ sentence: String, at offset: Int, in part: String = "") -> Failure {
        Failure(code, sentence, at: "\(name): \(part)+\(hex(offset))")
    }
}

/// Reads forward through a part of `Bytes`; every read that would leave the part throws `truncated` with its place.
public struct ByteCursor: Sendable {
    public let bytes: Bytes
    public let part: String
    public private(set) var offset: Int
    public let end: Int

    public init(_ bytes: Bytes, _ range: Range<Int>, part: String) {
        self.bytes = bytes
        self.part = part
        offset = max(0, range.lowerBound)
        end = min(bytes.count, range.upperBound)
    }

    public var isAtEnd: Bool { offset >= end }

    private mutating func advance(_ n: Int) throws(Failure) -> Int {
        guard n >= 0, offset <= end, n <= end - offset else {
            throw bytes.failure("truncated", "needs \(n) bytes and \(max(0, end - offset)) are left.", at: offset, in: part)
        }
        defer { offset += n }
        return offset
    }

    public mutating func skip(_ n: Int) throws(Failure) { _ = try advance(n) }
    public mutating func seek(_ to: Int) throws(Failure) {
        guard to >= offset, to <= end else {
            throw bytes.failure("truncated", "a record ends at \(hex(to)), outside its part.", at: offset, in: part)
        }
        offset = to
    }
    public mutating func u8() throws(Failure) -> UInt8 { bytes.storage[try advance(1)] }
    public mutating func u16() throws(Failure) -> UInt16 { bytes.u16(try advance(2)) ?? 0 }
    public mutating func u32() throws(Failure) -> UInt32 { bytes.u32(try advance(4)) ?? 0 }
    public mutating func u64() throws(Failure) -> UInt64 { bytes.u64(try advance(8)) ?? 0 }
    public mutating func take(_ n: Int) throws(Failure) -> ArraySlice<UInt8> {
        let start = try advance(n)
        return bytes.storage[start..<start + n]
    }

    /// Unsigned LEB128 of at most 64 bits (DWARF 5, section 7.6).
    public mutating func uleb() throws(Failure) -> UInt64 {
        var result: UInt64 = 0
        var shift: UInt64 = 0
        while true {
            let byte = try u8()
            if shift < 64 { result |= UInt64(byte & 0x7f) << shift }
            shift += 7
            if byte & 0x80 == 0 { return result }
            if shift > 70 { throw bytes.failure("leb-too-long", "a LEB128 number exceeds 64 bits.", at: offset, in: part) }
        }
    }

    /// Signed LEB128 of at most 64 bits.
    public mutating func sleb() throws(Failure) -> Int64 {
        var result: UInt64 = 0
        var shift: UInt64 = 0
        while true {
            let byte = try u8()
            if shift < 64 { result |= UInt64(byte & 0x7f) << shift }
            shift += 7
            if byte & 0x80 == 0 {
                if shift < 64, byte & 0x40 != 0 { result |= ~UInt64(0) << shift }
                return Int64(bitPattern: result)
            }
            if shift > 70 { throw bytes.failure("leb-too-long", "a LEB128 number exceeds 64 bits.", at: offset, in: part) }
        }
    }
}
