// One linked build as the builder sees it: its functions, decoded, and every place their bytes point to.

import ELF
import MachineCode

/// A place in a function's code that holds a distance to something outside the function.
struct Reference: Sendable {
    enum Kind: Sendable, Equatable {
        case call, jump, conditionalJump
        /// `lea`: the address is taken.
        case address
        /// The bytes there are read or written.
        case access(bytes: Int, isWrite: Bool)

        var isBranch: Bool { self == .call || self == .jump || self == .conditionalJump }
    }
    /// Index into the function's instructions.
    var instruction: Int
    /// Offset and size of the field, from the function's start.
    var field: Int
    var fieldSize: Int
    /// Offset of the instruction's end: distances count from there.
    var end: Int
    var target: LinkAddress
    var kind: Kind
    /// For addresses: what the code does with it.
    var use: AddressUse?
    /// The end of an array, or an identity: never followed.
    var isOnlyCompared: Bool { use == .compared }
}

/// One contiguous range of code: a function, a cold part of one, or bytes that no unwind data covers.
struct CodeFunction: Sendable {
    var index: Int
    var start: LinkAddress
    var size: Int
    /// Names in symbol tables, sorted; empty in stripped code.
    var names: [String] = []
    /// Its names as they are the same in two builds: `file.c:name` where they are local.
    var keys: [String] = []
    var isExported = false
    /// Index into the unwind table; nil for code without unwind data.
    var frame: Int?
    var instructions: [Instruction] = []
    var undecodedAt: Int?
    var references: [Reference] = []
    /// The code with every field of `references` zeroed: equal bytes mean equal code.
    var normalized: [UInt8] = []
    /// Padding bytes behind the function that belong to nobody.
    var roomAfter = 0

    var end: LinkAddress { start + size }
    func contains(_ a: LinkAddress) -> Bool { a >= start && a < end }
}

/// What an address in the image is.
enum Place: Hashable, Sendable {
    case function(Int, offset: Int)
    /// The PLT entry of a dynamic symbol.
    case plt(String)
    /// A GOT slot or another word that the loader fills, by what it will hold.
    case slot(SlotKey)
    /// Data in the section with this index.
    case data(section: Int)
    case nowhere
}

/// What the loader puts into a word.
enum SlotKey: Hashable, Sendable {
    case symbol(String)
    case jumpSlot(String)
    case relative(LinkAddress)
    case indirect(LinkAddress)
    case threadOffset(String, Int64)
    /// Symbol, and the offset that the next word holds for local variables.
    case threadModule(String, UInt64)
    case other(UInt32, String, Int64)

    /// A pair of words that `__tls_get_addr` or a descriptor call is given the address of.
    var isThreadLocal: Bool {
        switch self {
        case .threadModule: true
        case .other(let type, _, _): type == 36  // R_X86_64_TLSDESC
        default: false
        }
    }
}

struct CodeImage: Sendable {
    static let functionsMax = 1_000_000

    let file: ELFFile
    let unwind: UnwindTable
    /// Sorted by start, not overlapping.
    private(set) var functions: [CodeFunction] = []
    /// PLT entry start -> symbol key.
    private(set) var plt: [LinkAddress: String] = [:]
    /// Symbol key -> PLT entry.
    private(set) var pltByKey: [String: LinkAddress] = [:]
    private(set) var relocationAt: [LinkAddress: Relocation] = [:]
    /// What a loader-filled word holds -> its first address.
    private(set) var slotByKey: [SlotKey: LinkAddress] = [:]
    /// Defined data symbols by key, and by address.
    private(set) var objectByKey: [String: Symbol] = [:]
    private(set) var objectAt: [LinkAddress: Symbol] = [:]
    private(set) var objectKeyAt: [LinkAddress: String] = [:]
    /// Where data objects begin, sorted.
    private(set) var objectStarts: [LinkAddress] = []
    /// Defined functions of the dynamic symbol table.
    private(set) var exportedByKey: [String: Int] = [:]
    /// Functions whose address is in data, by relocation.
    private(set) var pointedTo: Set<LinkAddress> = []
    private let pltSections: Set<Int>
    private let gotSections: Set<Int>

    /// Throws the ELF reader's failures, `no-sections`, `position-dependent`, `no-unwind-data`, `limit-exceeded`.
    init(_ file: ELFFile) throws(Failure) {
        self.file = file
        guard file.type == ELFFile.sharedObject else {
            throw Failure(
                "position-dependent", "the object is linked at fixed addresses, so its constants cannot be told from its addresses.",
                at: file.name, remedy: "Position-independent programs and shared libraries can be compared.")
        }
        guard file.section(".text") != nil else {
            throw Failure("no-sections", "the file has no section headers.", at: file.name, remedy: "Use the file as its package ships it.")
        }
        guard !file.relocations.contains(where: { file.section(at: $0.address)?.isExecutable ?? false }) else {
            throw Failure(
                "text-relocations", "the loader rewrites this file's code, so its bytes in memory cannot be checked.", at: file.name,
                remedy: "Install the fixed package and restart.")
        }
        unwind = try UnwindTable(file)
        guard !unwind.frames.isEmpty else {
            throw Failure(
                "no-unwind-data", "the file has no unwind data, so its functions cannot be found.", at: file.name,
                remedy: "Nothing can be proved about such a build; use the fixed package and restart.")
        }
        pltSections = Set(file.sections.filter { $0.name.hasPrefix(".plt") && $0.isExecutable }.map(\.index))
        gotSections = Set(file.sections.filter { $0.name.hasPrefix(".got") }.map(\.index))
        for r in file.relocations { relocationAt[r.address] = r }
        for r in file.relocations { if let key = key(of: r), slotByKey[key] == nil || isGOT(r.address) { slotByKey[key] = r.address } }
        var ambiguous: Set<String> = []
        for (key, s) in Self.keyed(file) where s.isDefined && s.kind == .object && s.section != Symbol.absolute {
            if let known = objectByKey[key], known.value != s.value { ambiguous.insert(key) }
            if objectByKey[key] == nil { objectByKey[key] = s }
            if objectAt[s.value].map({ $0.size < s.size }) ?? true {
                objectAt[s.value] = s
                objectKeyAt[s.value] = key
            }
        }
        // Several objects of one key are told apart by nothing: none of them is known by its name.
        for key in ambiguous { objectByKey[key] = nil }
        for (address, key) in objectKeyAt where objectByKey[key] == nil { objectKeyAt[address] = nil }
        objectStarts = objectAt.keys.sorted()
        readPLT()
        try findFunctions()
        for i in functions.indices { decodeFunction(i) }
        for r in file.relocations { if let target = target(of: r) { pointedTo.insert(target) } }
    }

    // MARK: Looking things up

    /// The function that holds `a`, by binary search.
    func function(at a: LinkAddress) -> Int? {
        var low = 0, high = functions.count
        while low < high {
            let middle = (low + high) / 2
            if functions[middle].start <= a { low = middle + 1 } else { high = middle }
        }
        guard low > 0, functions[low - 1].contains(a) else { return nil }
        return low - 1
    }

    /// The data object that begins nearest before `a`, or at it, if it reaches as far.
    func object(around a: LinkAddress) -> Symbol? {
        var low = 0, high = objectStarts.count
        while low < high {
            let middle = (low + high) / 2
            if objectStarts[middle] <= a { low = middle + 1 } else { high = middle }
        }
        guard low > 0, let s = objectAt[objectStarts[low - 1]], s.size > 0, a - s.value < s.size else { return nil }
        return s
    }

    func isGOT(_ a: LinkAddress) -> Bool { file.section(at: a).map { gotSections.contains($0.index) } ?? false }

    func place(_ a: LinkAddress) -> Place {
        if let f = function(at: a) { return .function(f, offset: a - functions[f].start) }
        guard let section = file.section(at: a) else { return .nowhere }
        if pltSections.contains(section.index) { return plt[a].map(Place.plt) ?? .nowhere }
        if gotSections.contains(section.index) {
            guard let r = relocationAt[a], let key = key(of: r) else { return .data(section: section.index) }
            return .slot(key)
        }
        return section.isExecutable ? .nowhere : .data(section: section.index)
    }

    /// A dynamic symbol's name as it is the same in two builds.
    func symbolKey(_ index: Int) -> String {
        index > 0 && index < file.dynamicSymbols.count ? file.dynamicSymbols[index].key : ""
    }

    /// The place in this image whose address the loader writes; nil for imports and for what is no address. An indirect
    /// function counts as its resolver.
    func target(of r: Relocation) -> LinkAddress? {
        switch r.type {
        case Relocation.relative, Relocation.irelative: return LinkAddress(UInt64(bitPattern: r.addend))
        case Relocation.abs64, Relocation.globDat, Relocation.jumpSlot:
            guard r.symbol > 0, r.symbol < file.dynamicSymbols.count, file.dynamicSymbols[r.symbol].isDefined else { return nil }
            return file.dynamicSymbols[r.symbol].value + Int(truncatingIfNeeded: r.addend)
        default: return nil
        }
    }

    func key(of r: Relocation) -> SlotKey? {
        let symbol = symbolKey(r.symbol)
        switch r.type {
        case Relocation.globDat: return .symbol(symbol)
        case Relocation.jumpSlot: return .jumpSlot(symbol)
        case Relocation.relative: return .relative(LinkAddress(UInt64(bitPattern: r.addend)))
        case Relocation.irelative: return .indirect(LinkAddress(UInt64(bitPattern: r.addend)))
        case Relocation.tpoff64: return .threadOffset(symbol, r.addend)
        case Relocation.dtpmod64:
            let next = r.address + 8
            return .threadModule(symbol, relocationAt[next] == nil ? file.u64(at: next) ?? 0 : 0)
        default: return .other(r.type, symbol, r.addend)
        }
    }

    /// A name for people: the symbol, or the address.
    func name(_ index: Int) -> String { functions[index].names.first ?? "fn_" + String(functions[index].start.value, radix: 16) }

    /// Functions whose address is in data, in the GOT, or taken by code: who holds it can call them later.
    func addressTaken() -> Set<Int> {
        var result: Set<Int> = []
        func take(_ a: LinkAddress) { if let g = function(at: a), functions[g].start == a { result.insert(g) } }
        for a in pointedTo { take(a) }
        for f in functions { for r in f.references where r.kind == .address { take(r.target) } }
        take(file.entry)
        return result
    }

    /// What the last instruction that is not padding does; nil for code that is not understood.
    func lastFlow(_ index: Int) -> Instruction.Flow? {
        let f = functions[index]
        guard f.undecodedAt == nil, let last = f.instructions.last(where: { !$0.isPadding }) else { return nil }
        return last.storesToFirstPage ? .stop : last.flow
    }

    /// The function that runs on where this one ends without a jump or return; nil for code that ends properly.
    func fallsInto(_ index: Int) -> Int? {
        guard fallsThrough(index), index + 1 < functions.count,
            functions[index + 1].start == functions[index].end + functions[index].roomAfter
        else { return nil }
        return index + 1
    }

    /// Functions that it calls or jumps to by name or distance, through the PLT or the GOT too, or runs into.
    func directCallees(of index: Int) -> [Int] {
        var result: [Int] = []
        if let next = fallsInto(index) { result.append(next) }
        for r in functions[index].references {
            switch place(r.target) {
            case .function(let g, _): if g != index { result.append(g) }
            case .plt(let key): if let g = exportedByKey[key] { result.append(g) }
            case .slot: if let g = relocationAt[r.target].flatMap(target).flatMap(function) { result.append(g) }
            case .data, .nowhere: break
            }
        }
        return result
    }

    /// Control can run past the function's end into whatever follows.
    func fallsThrough(_ index: Int) -> Bool {
        switch lastFlow(index) {
        case .next, .conditional: true
        default: false
        }
    }

    /// The object takes part in exception handling: a callee may throw through any of its frames.
    var hasExceptions: Bool {
        let raising: Set<String> = [
            "__cxa_throw", "__cxa_rethrow", "_Unwind_RaiseException", "_Unwind_Resume", "_Unwind_Resume_or_Rethrow",
        ]
        return unwind.common.contains { $0.personality } || file.dynamicSymbols.contains { raising.contains($0.name) }
    }

    // MARK: Building

    /// Symbols with the keys by which they are the same in two builds: a local one belongs to its source file.
    private static func keyed(_ file: ELFFile) -> [(key: String, symbol: Symbol)] {
        var source = ""
        return file.dynamicSymbols.map { ($0.name, $0) }
            + file.symbols.map { s in
                if s.kind == .file { source = s.name }
                return (s.isGlobal ? s.name : source + ":" + (s.kind == .object ? unnumbered(s.name) : s.name), s)
            }
    }

    /// What ends the key of a static variable of a function.
    static let ofFunction = ".*"

    /// `count.7` is a `static int count` inside some function. The compiler numbers them as they come, so that a new one before it
    /// takes its number: without it all of one name in one file have one key.
    private static func unnumbered(_ name: String) -> String {
        guard let dot = name.lastIndex(of: "."), dot != name.startIndex else { return name }
        let digits = name[name.index(after: dot)...]
        return !digits.isEmpty && digits.allSatisfy { $0.isASCII && $0.isNumber } ? String(name[..<dot]) + ofFunction : name
    }

    private mutating func readPLT() {
        for index in pltSections {
            let section = file.sections[index]
            let entry = section.entrySize > 0 ? section.entrySize : (section.name == ".plt.got" ? 8 : 16)
            for i in decode(file.contents(section)).instructions where i.flow == .jump && i.isIndirect {
                guard let field = i.ripRelative else { continue }
                let slot = section.address + (i.end + field.distance)
                guard let r = relocationAt[slot] else { continue }
                let start = section.address + (i.offset / entry * entry)
                // IFUNC entries have no symbol: their resolver is their name.
                let key = r.type == Relocation.irelative ? "*\(hex(UInt64(bitPattern: r.addend)))" : symbolKey(r.symbol)
                guard !key.isEmpty else { continue }
                plt[start] = key
                if pltByKey[key] == nil || section.name != ".plt" { pltByKey[key] = start }
            }
        }
    }

    private mutating func findFunctions() throws(Failure) {
        let code = file.sections.filter { $0.isExecutable && $0.isAllocated && $0.hasBytes && !pltSections.contains($0.index) }
        func inCode(_ a: LinkAddress, _ size: Int) -> Bool { code.contains { $0.contains(a) && size > 0 && size <= $0.end - a } }
        var ranges: [LinkAddress: (size: Int, frame: Int?)] = [:]
        for (i, f) in unwind.frames.enumerated() where inCode(f.start, f.size) && ranges[f.start] == nil { ranges[f.start] = (f.size, i) }
        var names: [LinkAddress: Set<String>] = [:], keys: [LinkAddress: Set<String>] = [:]
        var exported: Set<LinkAddress> = []
        for (key, s) in Self.keyed(file) where s.isDefined && s.isFunction && s.section < Symbol.absolute {
            names[s.value, default: []].insert(s.name)
            keys[s.value, default: []].insert(key)
            if inCode(s.value, s.size), ranges[s.value] == nil { ranges[s.value] = (s.size, nil) }
        }
        for s in file.dynamicSymbols where s.isDefined && s.isFunction { exported.insert(s.value) }
        guard ranges.count <= Self.functionsMax else {
            throw Failure("limit-exceeded", "more than \(Self.functionsMax) functions.", at: file.name)
        }

        for section in code {
            let contents = file.contents(section)
            var at = section.address
            func bytes(_ range: Range<LinkAddress>) -> ArraySlice<UInt8> {
                let from = range.lowerBound - section.address, to = range.upperBound - section.address
                guard from >= 0, from <= to, to <= contents.count else { return [] }
                return contents[contents.startIndex + from..<contents.startIndex + to]
            }
            func addGap(to end: LinkAddress) -> Int {
                guard at < end else { return 0 }
                let gap = bytes(at..<end)
                let leading = paddingLength(gap)
                if leading == gap.count { return leading }
                let start = at + leading
                functions.append(CodeFunction(index: 0, start: start, size: end - start))
                return leading
            }
            for (start, range) in ranges.filter({ section.contains($0.key) }).sorted(by: { $0.key < $1.key }) {
                guard start >= at else { continue }
                let before = functions.count
                let room = addGap(to: start)
                let owner = functions.count > before ? functions.count - 2 : functions.count - 1
                if owner >= 0, functions[owner].end == at { functions[owner].roomAfter = room }
                functions.append(CodeFunction(index: 0, start: start, size: range.size, frame: range.frame))
                at = start + range.size
            }
            let before = functions.count
            let room = addGap(to: section.end)
            let owner = functions.count > before ? functions.count - 2 : functions.count - 1
            if owner >= 0, functions[owner].end == at { functions[owner].roomAfter = room }
        }
        functions.sort { $0.start < $1.start }
        for i in functions.indices {
            functions[i].index = i
            functions[i].names = (names[functions[i].start] ?? []).sorted()
            functions[i].keys = (keys[functions[i].start] ?? []).sorted()
            functions[i].isExported = exported.contains(functions[i].start)
        }
        for s in file.dynamicSymbols where s.isDefined && s.isFunction { exportedByKey[s.key] = function(at: s.value) }
    }

    /// Bytes at the start of `gap` that are alignment: NOPs in all their forms, int3, zeros.
    private func paddingLength(_ gap: ArraySlice<UInt8>) -> Int {
        var rest = gap
        while let first = rest.first {
            if first == 0 || first == 0xcc { rest = rest.dropFirst(); continue }
            let one = decode(rest.prefix(16)).instructions.first
            guard let one, one.isPadding else { break }
            rest = rest.dropFirst(one.length)
        }
        return gap.count - rest.count
    }

    private mutating func decodeFunction(_ index: Int) {
        var f = functions[index]
        guard let code = file.read(f.start, f.size) else { return }
        let decoded = decode(code)
        f.instructions = decoded.instructions
        f.undecodedAt = decoded.undecodedAt
        f.normalized = Array(code)
        for (n, i) in f.instructions.enumerated() {
            var field: Instruction.Field?
            var kind = Reference.Kind.address
            if let branch = i.branch {
                let target = i.end + branch.distance
                if target >= 0, target < f.size { continue }
                field = branch
                kind = i.flow == .call ? .call : i.flow == .conditional ? .conditionalJump : .jump
            } else if let rip = i.ripRelative {
                field = rip
                kind = i.takesAddress ? .address : .access(bytes: i.accessBytes, isWrite: i.writesMemory)
            }
            guard let field else { continue }
            let at = i.offset + field.offset
            f.references.append(
                Reference(
                    instruction: n, field: at, fieldSize: field.size, end: i.end, target: f.start + (i.end + field.distance), kind: kind))
            for k in 0..<field.size where at + k < f.normalized.count { f.normalized[at + k] = 0 }
        }
        f.findAddressUses { file.section(at: $0)?.index }
        functions[index] = f
    }
}
