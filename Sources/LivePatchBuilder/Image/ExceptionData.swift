// What one build says about exceptions: the table of each function, the words through which tables and unwind data name
// types and routines, and the types themselves.

import ELF

struct ExceptionData: Sendable {
    enum Table: Sendable {
        case understood(ExceptionTable)
        case failed(Failure)
    }
    /// By function index; functions without a table are not in it.
    private(set) var tables: [Int: Table] = [:]
    /// What the loader puts into such a word -> the word. They are data like any other for the linker, and nobody writes them.
    private(set) var slots: [SlotKey: LinkAddress] = [:]
    /// Mangled name -> type_info objects with it.
    private(set) var typesByName: [String: [LinkAddress]] = [:]
    private(set) var nameOfType: [LinkAddress: String] = [:]

    static let typeTable = "_ZTVN10__cxxabiv1"
    static let basesMax = 64
    static let depthMax = 16

    init(_ image: CodeImage) {
        guard image.hasExceptions else { return }
        func note(_ slot: LinkAddress) {
            if let key = image.relocationAt[slot].flatMap(image.key), slots[key] == nil { slots[key] = slot }
        }
        for slot in image.unwind.common.compactMap(\.personalitySlot) { note(slot) }
        for f in image.functions {
            guard let frame = f.frame, let address = image.unwind.frames[frame].lsda else { continue }
            do throws(Failure) {
                let table = try ExceptionTable(image.file, at: address)
                tables[f.index] = .understood(table)
                for slot in table.types.values.compactMap(\.slot) { note(slot) }
            } catch { tables[f.index] = .failed(error) }
        }
        for (address, r) in image.relocationAt where Self.isTypeTable(r, image) {
            guard let name = Self.name(address, image) else { continue }
            typesByName[name, default: []].append(address)
            nameOfType[address] = name
        }
    }

    /// The word begins a type_info object: it points to a table of functions that the C++ library has for such.
    private static func isTypeTable(_ r: Relocation, _ image: CodeImage) -> Bool {
        r.type == Relocation.abs64 && image.symbolKey(r.symbol).hasPrefix(typeTable)
    }

    private static func name(_ type: LinkAddress, _ image: CodeImage) -> String? {
        image.relocationAt[type + 8].flatMap(image.target).flatMap { image.file.text(at: $0, limit: 4096) }
    }
}

extension Comparison {
    /// Whether a word of the old build and one of the new hold the address of the same type or routine.
    func sameExceptionSlot(_ x: LinkAddress, _ y: LinkAddress) -> Bool {
        guard let r = old.relocationAt[x], let s = new.relocationAt[y], let a = old.key(of: r), let b = new.key(of: s) else { return false }
        if case (.relative(let p), .relative(let q)) = (a, b) { return sameType(p, q) }
        // By name: the loader decides for both builds alike.
        if case .other(Relocation.abs64, let symbol, _) = b, !symbol.isEmpty { return a == b }
        return false
    }

    /// Whether two type_info objects stand for one type: the name is in both builds once, and so are its bases.
    func sameType(_ x: LinkAddress, _ y: LinkAddress, depth: Int = 0) -> Bool {
        guard depth < ExceptionData.depthMax, let name = newExceptions.nameOfType[y],
            newExceptions.typesByName[name] == [y], oldExceptions.typesByName[name] == [x],
            let r = old.relocationAt[x], let s = new.relocationAt[y], old.symbolKey(r.symbol) == new.symbolKey(s.symbol),
            r.addend == s.addend
        else { return false }
        func word(_ at: Int) -> (UInt64, UInt64)? {
            guard let a = old.file.u64(at: x + at), let b = new.file.u64(at: y + at) else { return nil }
            return (a, b)
        }
        func sameBase(_ at: Int) -> Bool {
            guard let r = old.relocationAt[x + at], let s = new.relocationAt[y + at] else { return false }
            if r.type == Relocation.relative, s.type == Relocation.relative {
                return sameType(LinkAddress(UInt64(bitPattern: r.addend)), LinkAddress(UInt64(bitPattern: s.addend)), depth: depth + 1)
            }
            return r.type == s.type && r.symbol > 0 && s.symbol > 0 && old.symbolKey(r.symbol) == new.symbolKey(s.symbol)
                && r.addend == s.addend
        }
        let kind = new.symbolKey(s.symbol).split(separator: "@").first.map(String.init) ?? ""
        switch kind.dropFirst(ExceptionData.typeTable.count) {
        case "17__class_type_infoE", "23__fundamental_type_infoE", "16__enum_type_infoE", "20__function_type_infoE", "17__array_type_infoE":
            return true
        case "20__si_class_type_infoE": return sameBase(16)
        case "19__pointer_type_infoE":
            guard let flags = word(16) else { return false }
            return UInt32(truncatingIfNeeded: flags.0) == UInt32(truncatingIfNeeded: flags.1) && sameBase(24)
        case "21__vmi_class_type_infoE":
            guard let head = word(16), head.0 == head.1, case let count = Int(head.0 >> 32), count <= ExceptionData.basesMax else {
                return false
            }
            return (0..<count).allSatisfy { i in
                guard let flags = word(32 + 16 * i) else { return false }
                return flags.0 == flags.1 && sameBase(24 + 16 * i)
            }
        default: return false
        }
    }

    /// The old build's type_info object for one of the new build's; nil when that is not proved.
    func oldType(_ y: LinkAddress) -> LinkAddress? {
        if isItself { return y }
        guard let name = newExceptions.nameOfType[y],
            let x = oldExceptions.typesByName[name]?.first
        else { return nil }
        return sameType(x, y) ? x : nil
    }

    /// Why the old function must not stay although its code is the same: it catches something else.
    func exceptionDisagreement(_ o: Int, _ n: Int) -> String? {
        switch (oldExceptions.tables[o], newExceptions.tables[n]) {
        case (nil, nil): return nil
        case (.understood(let a)?, .understood(let b)?):
            return a.catchesTheSame(as: b, sameExceptionSlot) ? nil : "it catches other exceptions"
        default: return "what it catches is not understood"
        }
    }
}
