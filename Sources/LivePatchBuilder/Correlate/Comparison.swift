// Decides for every function of the new build whether running processes can keep the old one.

import ELF
import MachineCode

/// Two builds, matched and compared.
struct Comparison: Sendable {
    enum Relation: Equatable, Sendable {
        /// Same code, and everything it refers to corresponds: the old function stays.
        case same
        /// Line numbers moved and nothing else: the old function stays.
        case linesOnly
        /// The reason, for people.
        case changed(String)
        case added

        var isKept: Bool { self == .same || self == .linesOnly }
    }

    /// Places where unchanged code disagrees about where data went.
    struct Conflict: Sendable {
        var new: LinkAddress
        var old: [LinkAddress]
    }

    let old: CodeImage
    let new: CodeImage
    let oldData: DataLayout
    let newData: DataLayout
    let oldExceptions: ExceptionData
    let newExceptions: ExceptionData
    let match: Correlation
    /// Both builds are one: every address corresponds to itself.
    private(set) var isItself = false
    private(set) var relation: [Relation]
    private(set) var map = AddressMap()
    private(set) var conflicts: [Conflict] = []
    /// Unchanged functions that use a loader-filled word for a thread-local variable, or a place in thread-local storage.
    private(set) var threadVotes: [SlotKey: Set<Int>] = [:]
    private(set) var threadPlaces: [Int: Set<Int>] = [:]
    /// Sections (new indices) in which all that has a name lies where it did.
    private var arranged: Set<Int> = []

    init(_ old: CodeImage, _ new: CodeImage) {
        self.old = old
        self.new = new
        oldData = DataLayout(old)
        newData = DataLayout(new)
        oldExceptions = ExceptionData(old)
        newExceptions = ExceptionData(new)
        match = Correlation(old, new)
        relation = []
        for g in new.functions {
            guard let o = match.oldOf[g.index] else {
                relation.append(.added)
                continue
            }
            if match.isSameCode(o, g.index) {
                relation.append(.same)
            } else {
                relation.append(.changed(Self.describe(old.functions[o], g)))
            }
        }
        let differing = new.functions.indices.compactMap { n in relation[n] == .same ? nil : match.oldOf[n].map { ($0, n) } }
        for n in LineNumbers(new).explain(differing, in: old) { relation[n] = .linesOnly }
        // A function that turns out to refer elsewhere loses its votes, which may settle or unsettle others.
        while true {
            collectVotes()
            var again = false
            for n in relation.indices where relation[n].isKept {
                guard let o = match.oldOf[n], let reason = disagreement(o, n) else { continue }
                relation[n] = .changed(reason)
                again = true
            }
            if !again { break }
        }
        collectVotes()
        for (address, candidates) in map.votes where candidates.count > 1 {
            conflicts.append(Conflict(new: address, old: candidates.keys.sorted()))
        }
        conflicts.sort { $0.new < $1.new }
        arranged = Set(new.file.sections.filter { $0.isAllocated && $0.isWritable && isArrangedAsBefore($0) }.map(\.index))
    }

    /// One build compared with itself, where the functions `moving` count as changed although they are not.
    init(itself image: CodeImage, moving: Set<Int>) {
        old = image
        new = image
        oldData = DataLayout(image)
        newData = oldData
        oldExceptions = ExceptionData(image)
        newExceptions = oldExceptions
        match = Correlation(itself: image)
        isItself = true
        relation = image.functions.map { moving.contains($0.index) ? .changed("moved unchanged, as asked") : .same }
        collectVotes()
    }

    /// The same comparison with fewer functions to move.
    func moving(_ fewer: Set<Int>) -> Comparison {
        var c = self
        c.relation = relation.indices.map { fewer.contains($0) ? .changed("moved unchanged, as asked") : .same }
        return c
    }

    private static func describe(_ a: CodeFunction, _ b: CodeFunction) -> String {
        let kept = Alignment.pairs(a.instructions.map(shape), b.instructions.map(shape)).count { i, j in
            let x = a.instructions[i], y = b.instructions[j]
            return a.normalized[x.offset..<x.end] == b.normalized[y.offset..<y.end]
        }
        let total = b.instructions.count
        return "\(max(total, a.instructions.count) - kept) of \(total) instructions differ"
    }

    /// Matches that stand on more than order or similarity may testify.
    /// Bytes that no unwind data and no name calls a function may be data that only looks like references.
    private func mayVote(_ n: Int) -> Bool {
        let f = new.functions[n]
        return relation[n].isKept && match.basis[n].map { $0 <= .references } ?? false && (f.frame != nil || !f.names.isEmpty)
    }

    private mutating func collectVotes() {
        map = map.emptied()
        threadVotes = [:]
        threadPlaces = [:]
        for n in relation.indices where mayVote(n) {
            guard let o = match.oldOf[n] else { continue }
            for r in new.functions[n].references {
                if case .slot(let key) = new.place(r.target) { threadVotes[key, default: []].insert(n) }
            }
            for i in new.functions[n].instructions where i.usesSegment && i.memory?.base == nil {
                if let m = i.memory { threadPlaces[m.displacement, default: []].insert(n) }
            }
            for (a, b) in zip(old.functions[o].references, new.functions[n].references) where !b.kind.isBranch && !b.isOnlyCompared {
                let x = old.place(a.target), y = new.place(b.target)
                // The end of a section is no object, even where one begins in the other build.
                guard isData(x), isData(y), (x == .nowhere) == (y == .nowhere) else { continue }
                map.vote(b.target, is: a.target, by: n)
            }
        }
        // Pointers in corresponding data testify too, where at least two say the same and none speaks against it: one alone may
        // have been changed to point elsewhere.
        var pointers: [LinkAddress: [LinkAddress: Int]] = [:]
        for r in new.file.relocations where r.type == Relocation.relative {
            guard let there = provedOld(r.address), let s = old.relocationAt[there], s.type == Relocation.relative else { continue }
            let a = LinkAddress(UInt64(bitPattern: s.addend)), b = LinkAddress(UInt64(bitPattern: r.addend))
            if isData(old.place(a)), isData(new.place(b)), map.votes[b] == nil { pointers[b, default: [:]][a, default: 0] += 1 }
        }
        for (b, candidates) in pointers {
            if candidates.count == 1, let (a, count) = candidates.first, count >= 2, sameReadOnly(a, b) { map.prove(b, is: a) }
        }
        let symbols = Set(new.objectAt.keys.filter { oldBySymbol($0) != nil })
        map.close { [new] a in !symbols.contains(a) && !new.isGOT(a) && new.file.section(at: a)?.isWritable ?? false }
    }

    /// Just behind a section of memory, alignment included.
    private func isBoundary(_ a: LinkAddress, _ image: CodeImage) -> Bool {
        image.file.sections.contains { $0.isAllocated && a >= $0.end && a - $0.end < 64 }
    }

    private func isData(_ p: Place) -> Bool {
        switch p {
        case .data, .nowhere: true
        default: false
        }
    }

    /// The old address of a data address, where a symbol or at least two unchanged functions say so and none speaks against it.
    func provedOld(_ a: LinkAddress) -> LinkAddress? {
        if let bySymbol = oldBySymbol(a) { return bySymbol }
        if case .one(let there, let functions) = map.answer(a), functions >= 2 { return there }
        return map.votes[a] == nil ? map.relocated[a] : nil
    }

    /// By the name of the data object that begins there, where both builds have the symbol with one size. The static variables of
    /// functions only if `localsToo`: their names do not say whose they are, and one may have come where another went.
    func oldBySymbol(_ a: LinkAddress, localsToo: Bool = false) -> LinkAddress? {
        guard let s = new.objectAt[a], let key = new.objectKeyAt[a], let t = old.objectByKey[key], t.size == s.size,
            localsToo || !key.hasSuffix(CodeImage.ofFunction)
        else {
            return nil
        }
        return t.value
    }

    /// By the name of the data object that a reference is into. An access to a fixed address is to the object whose bytes those are.
    /// An address that is formed need not be inside what it is for: compilers fold `a[i - 1]` into an address before `a`. It
    /// is where it was only if everything that has a name in the section is, so that it does not matter whose address it is.
    func oldBySymbol(into r: Reference, localsToo: Bool) -> LinkAddress? {
        guard let s = new.object(around: r.target), let there = oldBySymbol(s.value, localsToo: localsToo) else { return nil }
        let place = there + (r.target - s.value)
        switch r.kind {
        case .access(let bytes, _): return bytes > 0 && r.target - s.value + bytes <= s.size ? place : nil
        case .address:
            guard let b = new.file.section(at: r.target), arranged.contains(b.index), let a = old.file.section(b.name),
                r.target - b.address == place - a.address
            else {
                return nil
            }
            return place
        default: return nil
        }
    }

    /// Each object of the section is known, by its name or, where several have one, by unchanged code, and lies where it lay.
    private func isArrangedAsBefore(_ b: Section) -> Bool {
        guard let a = old.file.section(b.name), a.size == b.size else { return false }
        let after = new.objectStarts.filter { b.contains($0) }
        return after.count == old.objectStarts.count { a.contains($0) }
            && after.allSatisfy { start in
                var there = oldBySymbol(start, localsToo: true)
                if there == nil, case .one(let voted, _) = map.answer(start), new.objectAt[start]?.size == old.objectAt[voted]?.size {
                    there = voted
                }
                return there.map { $0 - a.address == start - b.address } ?? false
            }
    }

    // MARK: What unchanged code refers to

    /// Why the old function must not stay although its code is the same; nil when it may.
    private func disagreement(_ o: Int, _ n: Int) -> String? {
        let a = old.functions[o], b = new.functions[n]
        guard a.references.count == b.references.count else { return "its references differ" }
        let behind = (old.fallsInto(o), new.fallsInto(n))
        guard (behind.0 == nil) == (behind.1 == nil), behind.0.flatMap({ match.newOf[$0] }) == behind.1 else {
            return "it runs into other code"
        }
        for (r, s) in zip(a.references, b.references) { if let reason = disagreement(r, s) { return reason } }
        return exceptionDisagreement(o, n)
    }

    private func disagreement(_ r: Reference, _ s: Reference) -> String? {
        switch (old.place(r.target), new.place(s.target)) {
        case (.function(let f, let i), .function(let g, let j)):
            guard match.newOf[f] == g else { return "it goes to \(new.name(g)) instead of \(old.name(f))" }
            if i == 0, j == 0 { return nil }
            // Into the middle: only code that stays the same has the same middle.
            if i == j, relation[g].isKept { return nil }
            return "it continues in \(new.name(g)), which changed"
        case (.plt(let a), .plt(let b)):
            return samePLT(a, b) ? nil : "it calls \(b) instead of \(a)"
        case (.slot(let a), .slot(let b)):
            return sameSlot(a, b) ? nil : "it uses another symbol"
        case (.data, .data):
            if let there = oldBySymbol(s.target) {
                if there != r.target { return "it uses other data (\(s.target))" }
            } else if map.disputed.contains(s.target) {
                return "unchanged code disagrees about the data at \(s.target)"
            } else if let m = map.majority(s.target), m != r.target {
                return "it uses other data (\(s.target))"
            }
            return sameReadOnly(r, s) ? nil : "read-only data at \(s.target) changed"
        case (.nowhere, .nowhere):
            guard s.use == .indexed else { return nil }
            return sameBehind(r.target, s.target) ? nil : "read-only data behind \(s.target) changed"
        case (.nowhere, .data) where isBoundary(r.target, old), (.data, .nowhere) where isBoundary(s.target, new):
            // The end of a section, as in `&__TMC_END__`: in one of the builds something begins there.
            return nil
        default:
            return "it refers to something of another kind"
        }
    }

    /// An index into an array that begins a section may start from an address before it: the section must be the same.
    private func sameBehind(_ x: LinkAddress, _ y: LinkAddress) -> Bool {
        func section(_ file: ELFFile, _ a: LinkAddress) -> Section? {
            file.sections.filter { $0.isAllocated && $0.hasBytes && $0.address > a && $0.address - a <= DataLayout.slack }
                .min { $0.address < $1.address }
        }
        guard let a = section(old.file, x), let b = section(new.file, y) else { return true }
        guard a.name == b.name, a.address - x == b.address - y else { return false }
        let size = min(a.size, b.size, DataLayout.slack)
        return a.isWritable || old.file.read(a.address, size) == new.file.read(b.address, size)
    }

    private func samePLT(_ a: String, _ b: String) -> Bool {
        if a == b { return true }
        guard a.hasPrefix("*0x"), b.hasPrefix("*0x"), let x = UInt64(a.dropFirst(3), radix: 16), let y = UInt64(b.dropFirst(3), radix: 16),
            let f = old.function(at: LinkAddress(x)), let g = new.function(at: LinkAddress(y))
        else { return false }
        return match.newOf[f] == g
    }

    func sameSlot(_ a: SlotKey, _ b: SlotKey) -> Bool {
        switch (a, b) {
        case (.relative(let x), .relative(let y)), (.indirect(let x), .indirect(let y)): return corresponds(x, y)
        default: return a == b
        }
    }

    /// True when an old and a new address stand for the same thing, as far as is known.
    func corresponds(_ x: LinkAddress, _ y: LinkAddress) -> Bool {
        switch (old.place(x), new.place(y)) {
        case (.function(let f, let i), .function(let g, let j)):
            // A pointer into the middle of a function (a computed goto) is the same only if the function is.
            return match.newOf[f] == g && (i == 0 && j == 0 || i == j && relation[g].isKept)
        case (.plt(let a), .plt(let b)): return samePLT(a, b)
        case (.data, .data), (.nowhere, .nowhere), (.data, .nowhere), (.nowhere, .data):
            if let there = oldBySymbol(y) ?? map.majority(y) { return there == x && sameReadOnly(x, y) }
            guard let s = new.file.section(at: y), let t = old.file.section(at: x), s.name == t.name else { return false }
            if !s.isWritable { return sameReadOnly(x, y) }
            // Writable and unknown: the same distance from the section's start is all that can be asked of a mere comparison.
            return y - s.address == x - t.address
        default: return false
        }
    }

    /// True when a reference of old code and the same one of new code read the same: see below.
    private func sameReadOnly(_ r: Reference, _ s: Reference) -> Bool {
        if case .access(let bytes, _) = s.kind { return sameReadOnly(r.target, s.target, bytes: max(bytes, 1)) }
        return sameReadOnly(r.target, s.target, s.use == r.use ? s.use : .indexed)
    }

    /// True when nothing that may be read through the address differs between the builds: jump tables are compared as code;
    /// writable and relocated data is compared elsewhere.
    func sameReadOnly(_ x: LinkAddress, _ y: LinkAddress, _ use: AddressUse? = nil, bytes: Int? = nil) -> Bool {
        guard let s = old.file.section(at: x), let t = new.file.section(at: y) else { return true }
        guard !s.isWritable, !t.isWritable else { return s.isWritable == t.isWritable }
        if let a = oldData.tables[x], let b = newData.tables[y] {
            return !a.isCut && !b.isCut && a.targets.count == b.targets.count
                && zip(a.targets, b.targets).allSatisfy { corresponds($0, $1) }
        }
        // What both builds have there: neither object is longer than that, unless code reads past its end.
        let before = oldData.reach(from: x, use, in: old), after = newData.reach(from: y, use, in: new)
        let count = bytes ?? min(before.upperBound - x, after.upperBound - y)
        guard count > 0, let a = old.file.read(x, count), let b = new.file.read(y, count) else { return true }
        if a == b { return true }
        guard use == .indexed else { return false }
        // Strings that happen to stand behind the start of an array are none of its elements.
        let own = newData.next(after: y, in: new) - y
        return !(0..<count).contains { at in
            a[a.startIndex + at] != b[b.startIndex + at]
                && (at < own || !oldData.isInText(x + at, in: old) || !newData.isInText(y + at, in: new))
        }
    }
}
