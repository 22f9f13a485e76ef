// The language-specific data area of a function: which of its calls may throw, where they land, and what is caught there.
// Format: Itanium C++ ABI, "Exception Handling Tables"; as gcc's unwind-pe.h and eh_personality.cc read it.

public struct ExceptionTable: Sendable, Equatable {
    public static let bytesMax = 1 << 20
    static let actionsMax = 65_536

    public struct CallSite: Sendable, Equatable {
        /// Offset from the function's start, and size.
        public var start: Int
        public var size: Int
        /// Offset of the landing pad from `landingBase`; nil without one.
        public var landing: Int?
        /// Offset of the first action, plus 1; 0 for none.
        public var action: Int
    }
    /// An entry of the table of types that some action uses.
    public struct Caught: Sendable, Equatable {
        /// Where the entry is: four bytes.
        public var field: LinkAddress
        /// The word that holds the type's address; nil for `catch (...)`.
        public var slot: LinkAddress?
    }

    public var address: LinkAddress
    /// All of it, the lists of exception specifications included.
    public var size: Int
    /// Where landing pads count from, if that is not the function's start; and the offset of the field that says so.
    public var landingBase: LinkAddress?
    public var landingField: Int?
    public var callSites: [CallSite]
    /// By index, from 1.
    public var types: [Int: Caught]
    /// Offset of the table of types' first byte: what stands before it holds no address but `landingField`.
    public var typesStart: Int
    /// Offset of the table of types' end: lists of exception specifications follow.
    public var typesEnd: Int

    /// Reads the table at `address`. Throws `exception-table-malformed`; `unwind-encoding` for pointers in another form than
    /// position-independent code has: 32-bit distances, to types by way of a word.
    public init(_ file: ELFFile, at address: LinkAddress) throws(Failure) {
        guard let section = file.section(at: address), section.hasBytes,
            let raw = file.read(address, min(section.end - address, Self.bytesMax))
        else { throw Failure("exception-table-malformed", "its exception table is not in the file.", at: "\(file.name): \(address)") }
        let bytes = Bytes(Array(raw), name: "\(file.name): exception table at \(address)")
        func malformed(_ sentence: String, _ at: Int) -> Failure { bytes.failure("exception-table-malformed", sentence, at: at) }
        func encoding(_ value: UInt8, _ at: Int) -> Failure {
            bytes.failure("unwind-encoding", "an exception table uses pointer encoding \(hex(value)).", at: at)
        }
        var cursor = ByteCursor(bytes, 0..<bytes.count, part: "")
        self.address = address
        let landingEncoding = try cursor.u8()
        if landingEncoding != 0xff {
            guard landingEncoding == 0x1b else { throw encoding(landingEncoding, 0) }
            landingField = cursor.offset
            landingBase = address + cursor.offset + Int(Int32(bitPattern: try cursor.u32()))
        }
        let typeEncoding = try cursor.u8()
        var end: Int?
        if typeEncoding != 0xff {
            guard typeEncoding == 0x9b else { throw encoding(typeEncoding, cursor.offset - 1) }
            let distance = try cursor.uleb()
            guard distance <= UInt64(bytes.count - cursor.offset) else { throw malformed("its types lie outside it.", cursor.offset) }
            end = cursor.offset + Int(distance)
        }
        let siteEncoding = try cursor.u8()
        guard siteEncoding == 0x01 else { throw encoding(siteEncoding, cursor.offset - 1) }
        let length = try cursor.uleb()
        guard length <= UInt64(bytes.count - cursor.offset) else { throw malformed("its calls lie outside it.", cursor.offset) }
        let actions = cursor.offset + Int(length)
        callSites = []
        func small(_ value: UInt64) throws(Failure) -> Int {
            guard value < 1 << 31 else { throw malformed("a number is too large.", cursor.offset) }
            return Int(value)
        }
        while cursor.offset < actions {
            let start = try small(cursor.uleb()), size = try small(cursor.uleb())
            let landing = try small(cursor.uleb()), action = try small(cursor.uleb())
            callSites.append(CallSite(start: start, size: size, landing: landing == 0 ? nil : landing, action: action))
        }
        guard cursor.offset == actions else { throw malformed("its calls are cut off.", actions) }

        // Only what the calls lead to is known to be there.
        var filters: Set<Int64> = [], seen: Set<Int> = [], actionsEnd = actions
        for site in callSites where site.action > 0 {
            var at = actions + site.action - 1
            while seen.insert(at).inserted {
                guard at < bytes.count, seen.count <= Self.actionsMax else { throw malformed("its actions lie outside it.", at) }
                var action = ByteCursor(bytes, at..<bytes.count, part: "")
                filters.insert(try action.sleb())
                let next = action.offset
                let distance = try action.sleb()
                actionsEnd = max(actionsEnd, action.offset)
                if distance == 0 { break }
                guard distance > -Int64(bytes.count), distance < Int64(bytes.count), next + Int(distance) >= actions else {
                    throw malformed("its actions lie outside it.", next)
                }
                at = next + Int(distance)
            }
        }
        var indices = Set(filters.filter { $0 > 0 }.map { Int(clamping: $0) })
        var size = end ?? actionsEnd
        for filter in filters where filter < 0 {
            guard let end, filter > -Int64(bytes.count) else { throw malformed("a specification lies outside it.", actions) }
            var list = ByteCursor(bytes, end + Int(-filter) - 1..<bytes.count, part: "")
            while true {
                let index = try list.uleb()
                if index == 0 { break }
                indices.insert(Int(clamping: index))
                guard indices.count <= Self.actionsMax else { throw malformed("a specification is too long.", end) }
            }
            size = max(size, list.offset)
        }
        types = [:]
        let count = indices.max() ?? 0
        if count > 0 {
            guard let end, count <= (end - actionsEnd) / 4 else { throw malformed("a type lies outside its table.", actions) }
            for index in indices {
                let at = end - 4 * index
                let distance = bytes.i32(at) ?? 0
                types[index] = Caught(field: address + at, slot: distance == 0 ? nil : address + at + Int(distance))
            }
        }
        typesEnd = end ?? size
        typesStart = typesEnd - 4 * count
        self.size = size
    }
}
