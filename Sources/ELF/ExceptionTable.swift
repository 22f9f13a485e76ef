// The language-specific data area of a function: which of its calls may throw, where they land, and what is caught there.
// Format: Itanium C++ ABI, "Exception Handling Tables"; as gcc's unwind-pe.h and eh_personality.cc read it.

public struct ExceptionTable: Sendable, Equatable {
    /// Larger ones are refused; compilers write a few hundred bytes.
    public static let bytesMax = 1 << 20
    static let actionsMax = 65_536

    public struct CallSite: Sendable, Equatable {
        /// Offset from the function's start, and size.
        public var start: Int
        public var size: Int
        /// Offset of the landing pad from the function's start, or from `landingBase`; nil without one.
        public var landing: Int?
        /// What is done there, in order: 0 cleans up, n catches type n, -n is an exception specification.
        public var filters: [Int64]
    }
    /// An entry of the table of types.
    public struct Caught: Sendable, Equatable {
        /// Offset of the entry: four bytes.
        public var field: Int
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
    /// The types that some filter or specification uses, by index.
    public var types: [Int: Caught]
    /// By filter.
    public var specifications: [Int64: [Int]]
    /// Where the entries of the table of types are, used or not: offsets.
    public var typeFields: Range<Int>

    /// Reads the table at `address`. Throws `exception-table-malformed`, the cursor's failures, and `unwind-encoding` for
    /// pointers in another form than position-independent code has: 32-bit distances, to types by way of a word.
    public init(_ file: ELFFile, at address: LinkAddress) throws(Failure) {
        guard let section = file.section(at: address), section.hasBytes else {
            throw Failure("exception-table-malformed", "its exception table is not in the file.", at: "\(file.name): \(address)")
        }
        // Offsets count in the file's bytes until the end.
        let bytes = file.bytes
        let base = Int(section.offset.value) + (address - section.address)
        let limit = min(Int(section.offset.value) + section.size, base + Self.bytesMax)
        func malformed(_ sentence: String, _ at: Int) -> Failure { bytes.failure("exception-table-malformed", sentence, at: at) }
        func encoding(_ value: UInt8, _ at: Int) -> Failure {
            bytes.failure("unwind-encoding", "an exception table uses pointer encoding \(hex(value)).", at: at)
        }
        func runAddress(_ offset: Int) -> LinkAddress { address + (offset - base) }
        var cursor = ByteCursor(bytes, base..<limit, part: ".gcc_except_table")
        self.address = address
        let landingEncoding = try cursor.u8()
        if landingEncoding != 0xff {
            guard landingEncoding == 0x1b else { throw encoding(landingEncoding, base) }
            let at = cursor.offset
            landingField = at - base
            landingBase = runAddress(at) + Int(Int32(bitPattern: try cursor.u32()))
        }
        let typeEncoding = try cursor.u8()
        var typesEnd: Int?
        if typeEncoding != 0xff {
            guard typeEncoding == 0x9b else { throw encoding(typeEncoding, cursor.offset - 1) }
            let distance = try cursor.uleb()
            guard distance <= UInt64(limit - cursor.offset) else { throw malformed("its types lie outside it.", cursor.offset) }
            typesEnd = cursor.offset + Int(distance)
        }
        let siteEncoding = try cursor.u8()
        guard siteEncoding == 0x01 else { throw encoding(siteEncoding, cursor.offset - 1) }
        let length = try cursor.uleb()
        guard length <= UInt64(limit - cursor.offset) else { throw malformed("its calls lie outside it.", cursor.offset) }
        let actions = cursor.offset + Int(length)
        var sites: [(start: UInt64, size: UInt64, landing: UInt64, action: UInt64)] = []
        while cursor.offset < actions {
            sites.append((try cursor.uleb(), try cursor.uleb(), try cursor.uleb(), try cursor.uleb()))
        }
        guard cursor.offset == actions else { throw malformed("its calls are cut off.", actions) }

        // Only what the calls lead to is known to be there.
        callSites = []
        var steps = 0, actionsEnd = actions
        for site in sites {
            guard max(site.start, site.size, site.landing, site.action) < 1 << 31 else {
                throw malformed("a number is too large.", actions)
            }
            var filters: [Int64] = []
            var at = site.action == 0 ? nil : actions + Int(site.action) - 1
            while let here = at {
                steps += 1
                guard here >= actions, here < limit, steps <= Self.actionsMax else { throw malformed("its actions lie outside it.", here) }
                var action = ByteCursor(bytes, here..<limit, part: ".gcc_except_table")
                filters.append(try action.sleb())
                let from = action.offset
                let distance = try action.sleb()
                actionsEnd = max(actionsEnd, action.offset)
                guard abs(distance.clamped) < limit - base else { throw malformed("its actions lie outside it.", from) }
                at = distance == 0 ? nil : from + Int(distance)
            }
            callSites.append(
                CallSite(
                    start: Int(site.start), size: Int(site.size), landing: site.landing == 0 ? nil : Int(site.landing), filters: filters))
        }
        specifications = [:]
        var indices: Set<Int> = [], end = typesEnd ?? actionsEnd
        for filter in Set(callSites.flatMap(\.filters)) where filter != 0 {
            guard let typesEnd, abs(filter.clamped) < limit - base else { throw malformed("it catches what it does not list.", actions) }
            if filter > 0 {
                indices.insert(Int(filter))
                continue
            }
            let start = typesEnd + Int(-filter) - 1
            guard start < limit else { throw malformed("a specification lies outside it.", typesEnd) }
            var list = ByteCursor(bytes, start..<limit, part: ".gcc_except_table")
            var listed: [Int] = []
            while true {
                let index = try list.uleb()
                if index == 0 { break }
                guard index < UInt64(limit - base), listed.count < Self.actionsMax else {
                    throw malformed("a specification is too long.", typesEnd)
                }
                listed.append(Int(index))
            }
            specifications[filter] = listed
            indices.formUnion(listed)
            end = max(end, list.offset)
        }
        types = [:]
        let count = indices.max() ?? 0
        if count > 0 {
            guard let typesEnd, count <= (typesEnd - actionsEnd) / 4 else { throw malformed("a type lies outside its table.", actions) }
            for index in indices {
                let at = typesEnd - 4 * index
                let distance = bytes.i32(at) ?? 0
                types[index] = Caught(field: at - base, slot: distance == 0 ? nil : runAddress(at) + Int(distance))
            }
        }
        typeFields = (typesEnd ?? end) - 4 * count - base..<(typesEnd ?? end) - base
        size = end - base
    }

    /// Whether both do the same at the same places. `same`: whether two words, of this table's build and of the other's, hold
    /// the address of the same type.
    public func catchesTheSame(as other: ExceptionTable, _ same: (LinkAddress, LinkAddress) -> Bool) -> Bool {
        guard callSites == other.callSites, specifications == other.specifications, types.count == other.types.count,
            landingBase == nil, other.landingBase == nil
        else { return false }
        return types.allSatisfy { index, mine in
            guard let theirs = other.types[index] else { return false }
            switch (mine.slot, theirs.slot) {
            case (nil, nil): return true
            case (let a?, let b?): return same(a, b)
            default: return false
            }
        }
    }
}

extension Int64 {
    /// Within what `abs` can take.
    fileprivate var clamped: Int64 { Swift.max(self, -Int64.max) }
}
