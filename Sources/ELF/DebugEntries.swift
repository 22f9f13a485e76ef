// Reads DWARF 2 to 5 (.debug_info, .debug_types) into the entries that say what types look like and which code they belong to.
// Written for bytes from anywhere: every offset is checked, nothing is followed without a limit.

/// One debugging entry of a kind that shapes types, data or scopes. Numbers that are absent are nil.
struct DebugEntry: Sendable {
    enum Kind: Sendable, Equatable {
        case unit, structure, union, enumeration, enumerator, member, inheritance, typedef, base, pointer, reference, array, subrange
        case routine, parameter, moreParameters, qualifier, variable, function, namespace, memberPointer, other
    }
    var kind: Kind
    /// Its place among all entries of the file, and the index of the entry it stands in.
    var offset: Int
    var parent: Int?
    var name = ""
    /// Places of other entries.
    var type: Int?
    var origin: Int?
    var size: Int?
    var place: Int?
    var bitSize: Int?
    var bitPlace: Int?
    var value: Int64?
    var encoding: Int?
    var isDeclaration = false
    /// Variables: it has one address for as long as the program runs.
    var hasAddress = false
    /// Functions of classes: where in the table of virtual functions.
    var virtualPlace: [UInt8] = []
}

/// Limits beside the parser: a file that exceeds one is refused.
enum DebugLimits {
    static let entriesMax = 40_000_000
    static let unitsMax = 1_000_000
    static let depthMax = 512
    static let abbreviationsMax = 1_000_000
}

struct DebugEntries: Sendable {
    private(set) var entries: [DebugEntry] = []
    /// The unit of each entry, by its index in `units`.
    private(set) var unitOf: [Int32] = []
    private(set) var units: [(name: String, ranges: [Range<LinkAddress>])] = []
    /// Types that another file holds (dwz), or a form that this reader does not know: then not all is known.
    private(set) var isIncomplete = false

    private var byOffset: [Int: Int32] = [:]
    private var signatures: [UInt64: Int] = [:]
    /// Places in .debug_types begin here.
    private static let typesBase = 1 << 44

    private let info: Bytes
    private let types: Bytes
    private let abbreviations: Bytes
    private let strings: Bytes
    private let lineStrings: Bytes
    private let stringOffsets: Bytes
    private let addresses: Bytes
    private let rangeLists: Bytes
    private let oldRanges: Bytes

    /// Throws `debug-malformed`, `debug-compressed` or `limit-exceeded` with the place. A file without debug information has no
    /// units.
    init(_ file: ELFFile) throws(Failure) {
        var isCompressed = false
        func part(_ name: String) -> Bytes {
            guard let s = file.section(name) else { return Bytes([], name: name) }
            if s.isCompressed { isCompressed = true }
            return Bytes(Array(file.contents(s)), name: file.name + ": " + name)
        }
        info = part(".debug_info")
        types = part(".debug_types")
        abbreviations = part(".debug_abbrev")
        strings = part(".debug_str")
        lineStrings = part(".debug_line_str")
        stringOffsets = part(".debug_str_offsets")
        addresses = part(".debug_addr")
        rangeLists = part(".debug_rnglists")
        oldRanges = part(".debug_ranges")
        guard !isCompressed else {
            throw Failure(
                "debug-compressed", "its debug information is compressed.", at: file.name,
                remedy: "objcopy --decompress-debug-sections FILE")
        }
        try read(types, base: Self.typesBase, isTypes: true)
        try read(info, base: 0, isTypes: false)
    }

    func index(at offset: Int) -> Int? { byOffset[offset].map { Int($0) } }

    // MARK: Units

    private struct Unit {
        var bytes: Bytes
        var base: Int
        var start: Int
        var end: Int
        var version: Int
        var is64: Bool
        var addressSize: Int
        var stringBase = 8
        var addressBase = 8
        var rangeBase = 12
        var lowPC: UInt64 = 0
        var number: Int32 = 0
        var offsetSize: Int { is64 ? 8 : 4 }
    }

    private mutating func read(_ bytes: Bytes, base: Int, isTypes: Bool) throws(Failure) {
        var at = 0
        while at < bytes.count {
            guard units.count < DebugLimits.unitsMax else {
                throw Failure("limit-exceeded", "more than \(DebugLimits.unitsMax) units.", at: bytes.name)
            }
            var cursor = ByteCursor(bytes, at..<bytes.count, part: "unit")
            var length = Int(try cursor.u32()), is64 = false
            if length == 0xffff_ffff {
                is64 = true
                let long = try cursor.u64()
                guard let fits = Int(exactly: long) else { throw malformed(bytes, at, "a unit is too long") }
                length = fits
            }
            guard length <= bytes.count - cursor.offset, length > 0 else { throw malformed(bytes, at, "a unit is longer than its section") }
            let end = cursor.offset + length
            var unit = Unit(bytes: bytes, base: base, start: at, end: end, version: Int(try cursor.u16()), is64: is64, addressSize: 8)
            guard (2...5).contains(unit.version) else { throw malformed(bytes, at, "DWARF version \(unit.version) is unknown") }
            var kind: UInt8 = isTypes ? 2 : 1
            let table: Int
            if unit.version >= 5 {
                kind = try cursor.u8()
                unit.addressSize = Int(try cursor.u8())
                table = try offset(&cursor, unit)
            } else {
                table = try offset(&cursor, unit)
                unit.addressSize = Int(try cursor.u8())
            }
            guard unit.addressSize == 8 || unit.addressSize == 4 else {
                throw malformed(bytes, at, "addresses of \(unit.addressSize) bytes")
            }
            switch kind {
            case 2, 6:
                let signature = try cursor.u64()
                let entry = try offset(&cursor, unit)
                signatures[signature] = base + at &+ entry
            case 4, 5:
                _ = try cursor.u64()
                isIncomplete = true
            default: break
            }
            guard cursor.offset <= end else { throw malformed(bytes, at, "a unit is shorter than its header") }
            let shapes = try readShapes(table)
            unit.number = Int32(units.count)
            units.append(("", []))
            try readEntries(&unit, shapes, from: cursor.offset)
            at = end
        }
    }

    private func malformed(_ bytes: Bytes, _ at: Int, _ what: String) -> Failure {
        bytes.failure("debug-malformed", what + ".", at: at)
    }

    private func offset(_ cursor: inout ByteCursor, _ unit: Unit) throws(Failure) -> Int {
        if unit.is64 { return Int(truncatingIfNeeded: try cursor.u64()) }
        return Int(try cursor.u32())
    }

    // MARK: Shapes

    private struct Shape {
        var tag: UInt64
        var hasChildren: Bool
        var attributes: [(name: UInt64, form: UInt64, constant: Int64)]
    }

    private func readShapes(_ start: Int) throws(Failure) -> [UInt64: Shape] {
        guard start >= 0, start < abbreviations.count else {
            throw malformed(abbreviations, max(0, start), "a table of shapes lies outside")
        }
        var cursor = ByteCursor(abbreviations, start..<abbreviations.count, part: "")
        var result: [UInt64: Shape] = [:]
        while !cursor.isAtEnd {
            let code = try cursor.uleb()
            if code == 0 { break }
            var shape = Shape(tag: try cursor.uleb(), hasChildren: try cursor.u8() != 0, attributes: [])
            while true {
                let name = try cursor.uleb(), form = try cursor.uleb()
                let constant = form == 0x21 ? try cursor.sleb() : 0
                if name == 0, form == 0 { break }
                guard shape.attributes.count < 4096 else { throw malformed(abbreviations, start, "an entry has too many attributes") }
                shape.attributes.append((name, form, constant))
            }
            result[code] = shape
            guard result.count <= DebugLimits.abbreviationsMax else {
                throw Failure("limit-exceeded", "more than \(DebugLimits.abbreviationsMax) shapes.", at: abbreviations.name)
            }
        }
        return result
    }

    private static func kind(_ tag: UInt64) -> DebugEntry.Kind {
        switch tag {
        case 0x11, 0x3c, 0x41: .unit
        case 0x02, 0x13: .structure
        case 0x17: .union
        case 0x04: .enumeration
        case 0x28: .enumerator
        case 0x0d: .member
        case 0x1c: .inheritance
        case 0x16: .typedef
        case 0x24, 0x3b: .base
        case 0x0f: .pointer
        case 0x10, 0x42: .reference
        case 0x01: .array
        case 0x21: .subrange
        case 0x15: .routine
        case 0x05: .parameter
        case 0x18: .moreParameters
        case 0x26, 0x35, 0x37, 0x47: .qualifier
        case 0x34: .variable
        case 0x2e: .function
        case 0x39: .namespace
        case 0x1f: .memberPointer
        default: .other
        }
    }

    // MARK: Entries

    private enum Value {
        case number(UInt64), signed(Int64), text(String), place(Int), block(ArraySlice<UInt8>), address(UInt64), nothing
    }

    private mutating func readEntries(_ unit: inout Unit, _ shapes: [UInt64: Shape], from start: Int) throws(Failure) {
        var cursor = ByteCursor(unit.bytes, start..<unit.end, part: "entry")
        /// Index of the kept entry that children belong to, for each level.
        var parents: [Int?] = []
        var isFirst = true
        while !cursor.isAtEnd {
            let at = cursor.offset
            let code = try cursor.uleb()
            if code == 0 {
                if parents.isEmpty { break }
                parents.removeLast()
                continue
            }
            guard let shape = shapes[code] else { throw malformed(unit.bytes, at, "an entry of unknown shape") }
            guard entries.count < DebugLimits.entriesMax else {
                throw Failure("limit-exceeded", "more than \(DebugLimits.entriesMax) entries.", at: unit.bytes.name)
            }
            let parent = parents.last ?? nil
            var entry = DebugEntry(kind: Self.kind(shape.tag), offset: unit.base + at, parent: parent)
            if isFirst { try readBases(shape, cursor, &unit) }
            var lowPC: UInt64?, highPC: (UInt64, isLength: Bool)?, ranges: (UInt64, isIndex: Bool)?
            for (name, form, constant) in shape.attributes {
                let value = try read(form, constant, &cursor, unit)
                if isFirst {
                    switch (name, value) {
                    case (0x11, .address(let a)): lowPC = a
                    case (0x12, .address(let a)): highPC = (a, false)
                    case (0x12, .number(let n)): highPC = (n, true)
                    case (0x55, .number(let n)): ranges = (n, form == 0x23)
                    default: break
                    }
                }
                apply(name, value, to: &entry)
            }
            if isFirst {
                isFirst = false
                unit.lowPC = lowPC ?? 0
                units[Int(unit.number)] = (entry.name, try codeRanges(unit, lowPC, highPC, ranges))
            }
            var index: Int? = parent
            // Parameters of functions that have code are no type.
            let isLeftOut = entry.kind == .other || entry.kind == .parameter && !(parent.map { entries[$0].kind == .routine } ?? false)
            if !isLeftOut {
                index = entries.count
                byOffset[entry.offset] = Int32(entries.count)
                entries.append(entry)
                unitOf.append(unit.number)
            }
            if shape.hasChildren {
                guard parents.count < DebugLimits.depthMax else { throw malformed(unit.bytes, at, "entries are nested too deeply") }
                parents.append(index)
            }
        }
    }

    private func apply(_ name: UInt64, _ value: Value, to e: inout DebugEntry) {
        func number() -> Int? {
            switch value {
            case .number(let n): Int(truncatingIfNeeded: n)
            case .signed(let n): Int(n)
            default: nil
            }
        }
        switch name {
        case 0x03: if case .text(let t) = value { e.name = t }
        case 0x0b: e.size = number()
        case 0x0d: e.bitSize = number()
        case 0x0c, 0x6b: e.bitPlace = number()
        case 0x1c, 0x22, 0x2f, 0x37: if let n = number() { e.value = Int64(n) }
        case 0x38:
            if let n = number() { e.place = n }
            if case .block(let b) = value { e.virtualPlace = Array(b) }
        case 0x3e: e.encoding = number()
        case 0x49: if case .place(let p) = value { e.type = p }
        case 0x31, 0x47: if case .place(let p) = value { e.origin = p }
        case 0x3c: if let n = number() { e.isDeclaration = n != 0 }
        // The signature of a type that a unit of its own holds.
        case 0x69: if case .place(let p) = value { e.origin = p }
        case 0x4d: if case .block(let b) = value { e.virtualPlace = Array(b) }
        case 0x02:
            // DW_OP_addr, addrx, GNU_addr_index, and offsets in thread-local storage.
            if case .block(let b) = value, let first = b.first {
                e.hasAddress = first == 0x03 || first == 0xa1 || first == 0xfb || b.last == 0x9b || b.last == 0xe0
            }
        default: break
        }
    }

    private mutating func read(_ form: UInt64, _ constant: Int64, _ c: inout ByteCursor, _ u: Unit, depth: Int = 0) throws(Failure) -> Value
    {
        switch form {
        case 0x01: return .address(u.addressSize == 8 ? try c.u64() : UInt64(try c.u32()))
        case 0x0b: return .number(UInt64(try c.u8()))
        case 0x05: return .number(UInt64(try c.u16()))
        case 0x06: return .number(UInt64(try c.u32()))
        case 0x07: return .number(try c.u64())
        case 0x0c: return .number(UInt64(try c.u8()))
        case 0x0d: return .signed(try c.sleb())
        case 0x0f: return .number(try c.uleb())
        case 0x19: return .number(1)
        case 0x21: return .signed(constant)
        case 0x1e: return .block(try c.take(16))
        case 0x0a:
            let n = Int(try c.u8())
            return .block(try c.take(n))
        case 0x03:
            let n = Int(try c.u16())
            return .block(try c.take(n))
        case 0x04:
            let n = Int(try c.u32())
            return .block(try c.take(n))
        case 0x09, 0x18:
            let n = Int(truncatingIfNeeded: try c.uleb())
            return .block(try c.take(n))
        case 0x08:
            let start = c.offset
            guard let text = u.bytes.string(start, limit: min(1 << 20, c.end - start)) else {
                throw malformed(u.bytes, start, "a string does not end")
            }
            try c.skip(u.bytes.storage[start..<c.end].firstIndex(of: 0).map { $0 - start + 1 } ?? 0)
            return .text(text)
        case 0x0e: return .text(strings.string(try offset(&c, u), limit: 1 << 20) ?? "")
        case 0x1f: return .text(lineStrings.string(try offset(&c, u), limit: 1 << 20) ?? "")
        case 0x1a, 0x1f02: return .text(string(Int(truncatingIfNeeded: try c.uleb()), u))
        case 0x25: return .text(string(Int(try c.u8()), u))
        case 0x26: return .text(string(Int(try c.u16()), u))
        case 0x27:
            let raw = try c.take(3)
            return .text(string(raw.reversed().reduce(0) { $0 << 8 | Int($1) }, u))
        case 0x28: return .text(string(Int(try c.u32()), u))
        case 0x11: return .place(u.base + u.start + Int(try c.u8()))
        case 0x12: return .place(u.base + u.start + Int(try c.u16()))
        case 0x13: return .place(u.base + u.start + Int(try c.u32()))
        case 0x14: return .place(u.base &+ u.start &+ Int(truncatingIfNeeded: try c.u64()))
        case 0x15: return .place(u.base &+ u.start &+ Int(truncatingIfNeeded: try c.uleb()))
        case 0x10:
            return .place(
                u.version == 2 ? Int(truncatingIfNeeded: u.addressSize == 8 ? try c.u64() : UInt64(try c.u32())) : try offset(&c, u))
        case 0x20: return signatures[try c.u64()].map { .place($0) } ?? .nothing
        case 0x17: return .number(UInt64(truncatingIfNeeded: try offset(&c, u)))
        case 0x1b, 0x1f01: return address(try c.uleb(), u)
        case 0x29: return address(UInt64(try c.u8()), u)
        case 0x2a: return address(UInt64(try c.u16()), u)
        case 0x2b:
            let raw = try c.take(3)
            return address(raw.reversed().reduce(0) { $0 << 8 | UInt64($1) }, u)
        case 0x2c: return address(UInt64(try c.u32()), u)
        case 0x22, 0x23: return .number(try c.uleb())
        case 0x16:
            guard depth < 4 else { throw malformed(u.bytes, c.offset, "forms refer to forms too deeply") }
            let next = try c.uleb()
            return try read(next, 0, &c, u, depth: depth + 1)
        case 0x1f20, 0x1f21, 0x1d:
            isIncomplete = true
            _ = try offset(&c, u)
            return .nothing
        case 0x1c:
            isIncomplete = true
            try c.skip(4)
            return .nothing
        case 0x24:
            isIncomplete = true
            try c.skip(8)
            return .nothing
        default: throw malformed(u.bytes, c.offset, "form \(hex(form)) is unknown")
        }
    }

    // MARK: Tables

    /// The unit's first entry says where its parts of other tables begin, perhaps behind what needs to know.
    private mutating func readBases(_ shape: Shape, _ cursor: ByteCursor, _ unit: inout Unit) throws(Failure) {
        var c = cursor
        for (name, form, constant) in shape.attributes {
            let value = try read(form, constant, &c, unit)
            guard case .number(let n) = value, let at = Int(exactly: n) else { continue }
            switch name {
            case 0x72: unit.stringBase = at
            case 0x73: unit.addressBase = at
            case 0x74: unit.rangeBase = at
            default: break
            }
        }
    }

    private func string(_ index: Int, _ u: Unit) -> String {
        guard index >= 0, index < 1 << 32 else { return "" }
        let at = u.stringBase &+ index * u.offsetSize
        let place = u.is64 ? stringOffsets.u64(at).flatMap { Int(exactly: $0) } : stringOffsets.u32(at).map { Int($0) }
        return place.flatMap { strings.string($0, limit: 1 << 20) } ?? ""
    }

    private func address(_ index: UInt64, _ u: Unit) -> Value {
        guard index < 1 << 32, let a = addresses.u64(u.addressBase &+ Int(index) * 8) else { return .nothing }
        return .address(a)
    }

    private func codeRanges(_ u: Unit, _ low: UInt64?, _ high: (UInt64, isLength: Bool)?, _ ranges: (UInt64, isIndex: Bool)?)
        throws(Failure)
        -> [Range<LinkAddress>]
    {
        var result: [Range<LinkAddress>] = []
        func add(_ from: UInt64, _ to: UInt64) { if from < to { result.append(LinkAddress(from)..<LinkAddress(to)) } }
        if let low, let high { add(low, high.isLength ? low &+ high.0 : high.0) }
        guard let ranges, var at = Int(exactly: ranges.0) else { return result }
        var base = low ?? 0
        if u.version < 5 {
            for _ in 0..<DebugLimits.entriesMax {
                guard let from = oldRanges.u64(at), let to = oldRanges.u64(at + 8) else { break }
                at += 16
                if from == 0, to == 0 { break }
                if from == UInt64.max { base = to } else { add(base &+ from, base &+ to) }
            }
            return result
        }
        if ranges.isIndex {
            guard at < 1 << 32, let place = rangeLists.u32(u.rangeBase &+ at * 4) else { return result }
            at = u.rangeBase &+ Int(place)
        }
        guard at >= 0, at < rangeLists.count else { return result }
        var c = ByteCursor(rangeLists, at..<rangeLists.count, part: "ranges")
        func indexed(_ i: UInt64) -> UInt64 { if case .address(let a) = address(i, u) { a } else { 0 } }
        while !c.isAtEnd {
            switch try c.u8() {
            case 1: base = indexed(try c.uleb())
            case 2:
                let from = indexed(try c.uleb())
                add(from, indexed(try c.uleb()))
            case 3:
                let from = indexed(try c.uleb())
                add(from, from &+ (try c.uleb()))
            case 4:
                let from = try c.uleb(), to = try c.uleb()
                add(base &+ from, base &+ to)
            case 5: base = try c.u64()
            case 6:
                let from = try c.u64()
                add(from, try c.u64())
            case 7:
                let from = try c.u64()
                add(from, from &+ (try c.uleb()))
            default: return result
            }
        }
        return result
    }
}
