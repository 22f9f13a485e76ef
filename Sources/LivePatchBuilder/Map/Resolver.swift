// Finds for every reference of moved code what it must point to in a running process: code and data that are there
// already, or parts that the patch brings along. What cannot be proved becomes a finding, never a guess.

import ELF
import LivePatch
import MachineCode

/// Where a reference of moved code goes.
enum Destination: Hashable, Sendable {
    /// A link address of the old build, with a name for people.
    case old(LinkAddress, String)
    /// A moved function, by new index, and the offset into it.
    case moved(Int, offset: Int)
    /// A place in the new build's read-only data, of which this range is copied.
    case copy(LinkAddress, Range<LinkAddress>)
    case table(LinkAddress)
    /// New writable data: address in the new build and size.
    case fresh(LinkAddress, size: Int)
    /// A jump through the old build's GOT slot, for imports without a PLT entry.
    case thunk(slot: LinkAddress, String)
    /// A slot of the patch's own for something that the old build does not import; `isCall`: a jump through it.
    case imported(String, isCall: Bool)
}

struct Resolved: Sendable {
    var reference: Reference
    var destination: Destination
    /// Bytes from the destination to the actual target (a reference into the middle of something).
    var offset: Int
    var evidence: Evidence
}

struct Resolver {
    /// Copied objects of unknown end stop here.
    static let copyMax = 1 << 20
    /// R_X86_64_TLSDESC.
    static let tlsDescriptor: UInt32 = 36

    let c: Comparison
    let moved: MovedCode
    /// Old functions whose address somebody may hold.
    let oldTaken: Set<Int>
    private(set) var findings: [Finding] = []
    /// New indices of functions with refusing findings.
    private(set) var refused: Set<Int> = []
    /// Exceptions may pass through moved code.
    private(set) var needsUnwinder = false
    private(set) var freshAddresses: [LinkAddress: Int] = [:]
    private let places: DataPlaces
    /// The sources say that no declaration and no initial value changed.
    private let declarationsAgree: Bool

    init(_ c: Comparison, _ moved: MovedCode, oldTaken: Set<Int>, declarationsAgree: Bool) {
        self.c = c
        self.declarationsAgree = declarationsAgree
        places = DataPlaces(c, moved)
        self.moved = moved
        self.oldTaken = oldTaken
    }

    mutating func resolve(_ n: Int) -> [Resolved] {
        let f = c.new.functions[n]
        var result: [Resolved] = []
        checkShape(n)
        // Ends of arrays follow the arrays, so these come last.
        for r in f.references.filter({ !$0.isOnlyCompared }) + f.references.filter(\.isOnlyCompared) {
            guard let (destination, offset, evidence) = r.isOnlyCompared ? resolveCompared(r, n, result) : resolve(r, in: n) else {
                continue
            }
            // A one-byte branch can reach a jump behind the function, if the function is short enough.
            if r.fieldSize != 4, f.size + 5 * f.references.count - r.end > 127 {
                refuse(
                    "short-branch", n, "a one-byte branch leaves the function, and its end is too far for a longer one.",
                    "Install the fixed package and restart.")
                continue
            }
            result.append(Resolved(reference: r, destination: destination, offset: offset, evidence: evidence))
        }
        return result.sorted { $0.reference.field < $1.reference.field }
    }

    /// An address that is only compared is the end of the array that begins below it, if the function uses one there;
    /// otherwise it is what stands at it.
    private mutating func resolveCompared(_ r: Reference, _ n: Int, _ others: [Resolved]) -> Answer? {
        if !c.isItself, c.new.place(r.target) == .nowhere, let answer = resolveSectionEnd(r, others) { return answer }
        guard !c.isItself, case .data(let section) = c.new.place(r.target) else { return resolve(r, in: n) }
        let array = others.filter {
            $0.reference.kind == .address && $0.reference.target < r.target && c.new.place($0.reference.target) == .data(section: section)
        }.max { $0.reference.target < $1.reference.target }
        guard let array else { return resolve(r, in: n) }
        let distance = array.offset + (r.target - array.reference.target)
        if case .old(let there, _) = array.destination, let other = c.provedOld(r.target), other != there + distance {
            refuse(
                "ambiguous-address", n,
                "it compares with \(r.target), which may be the end of the data at \(array.reference.target) or something of its own.",
                "A build with symbols.")
            return nil
        }
        return (array.destination, distance, array.evidence)
    }

    /// The end of a section that is one array (`__start_things`, `__stop_things`): both builds have as much of it, and what the
    /// function uses of it is proved to lie as far from its end as in the old build.
    private func resolveSectionEnd(_ r: Reference, _ others: [Resolved]) -> Answer? {
        let ending = c.new.file.sections.filter { $0.isAllocated && !$0.isExecutable && $0.size > 0 && $0.end == r.target }
        guard ending.count == 1, let section = ending.first, let before = c.old.file.section(section.name), before.size == section.size
        else { return nil }
        for other in others where other.reference.kind == .address && section.contains(other.reference.target) {
            guard case .old(let there, _) = other.destination, before.end - (there + other.offset) == r.target - other.reference.target
            else { continue }
            return (other.destination, other.offset + (r.target - other.reference.target), other.evidence)
        }
        return nil
    }

    /// Shapes of code that cannot be moved whole, whatever they refer to.
    private mutating func checkShape(_ n: Int) {
        let f = c.new.functions[n]
        if c.new.fallsThrough(n) {
            refuse("falls-through", n, "its last instruction runs on into what follows it.", "Install the fixed package and restart.")
        }
        for i in f.instructions where i.flow == .call {
            if let target = i.branchTarget, target > 0, target < f.size {
                refuse("data-in-code", n, "it calls into its own middle.", "Install the fixed package and restart.")
            }
        }
        // fs:0x28 is the stack protector's; other direct places are the program's own thread-local variables.
        for i in f.instructions
        where i.usesSegment && i.memory?.base == nil && i.memory?.displacement != 0x28 && i.memory?.displacement != 0 {
            if let m = i.memory, c.threadPlaces[m.displacement, default: []].count < 2 {
                refuse(
                    "thread-local", n,
                    "it uses thread-local storage at \(m.displacement) directly; which variable that is in the old build is not proved.",
                    "A build with symbols, or restart.")
            }
        }
        if c.new.hasExceptions || c.old.hasExceptions, callsOthers(f) { needsUnwinder = true }
        guard let o = c.match.oldOf[n] else { return }
        let old = c.old.functions[o]
        let entries = (c.old.file.dynamicSymbols + c.old.file.symbols).filter {
            $0.isDefined && $0.isFunction && $0.value > old.start && $0.value < old.end
        }.map(
            \.name)
        let pointed = c.old.pointedTo.contains { $0 > old.start && $0 < old.end }
        if !entries.isEmpty || pointed {
            refuse(
                "second-entry", n, "the old function is entered in its middle\(entries.first.map { " (\($0))" } ?? ", through a pointer").",
                "Install the fixed package and restart.")
        }
    }

    /// True when something the function calls could raise an exception while its frame is there.
    private func callsOthers(_ f: CodeFunction) -> Bool {
        f.instructions.contains { i in
            guard i.flow == .call else { return false }
            guard let target = i.branchTarget, case .plt(let key) = c.new.place(f.start + target) else { return true }
            return !key.hasPrefix("__stack_chk_fail")
        }
    }

    mutating func note(_ finding: Finding) { if !findings.contains(finding) { findings.append(finding) } }

    mutating func refuse(_ code: String, _ n: Int, _ sentence: String, _ remedy: String) {
        refused.insert(n)
        note(Finding(code, c.new.name(n), sentence, remedy: remedy, verdict: .refuse))
    }

    private typealias Answer = (Destination, Int, Evidence)

    private mutating func resolve(_ r: Reference, in n: Int) -> Answer? {
        if c.isItself, let answer = resolveToItself(r) { return answer }
        switch c.new.place(r.target) {
        case .function(let g, let offset):
            // Its own start is a function pointer like any other, unless a 64-bit distance from it is added.
            let isBase = g == n && c.new.functions[n].instructions.contains { $0.immediate?.size == 8 }
            if !r.kind.isBranch, offset != 0 || isBase {
                refuse(
                    "data-in-code", n, "it forms the address of bytes inside code (\(r.target)), which need not move with it.",
                    "Install the fixed package and restart.")
                return nil
            }
            return resolveCode(r, g, offset, n)
        case .slot(let key) where r.kind == .address && !key.isThreadLocal:
            refuse(
                "got-relative", n, "it computes addresses from the global offset table's own, by distances that differ between builds.",
                "Install the fixed package and restart.")
            return nil
        case .plt(let key): return resolvePLT(key, n)
        case .slot(let key): return resolveSlot(key, r, n)
        case .data: return resolveData(r, n)
        case .nowhere:
            // The end of a section, as in `&__bss_end`: only votes can tell.
            if case .one(let there, let functions) = c.map.answer(r.target), functions >= 2 { return (.old(there, "data"), 0, .votes) }
            refuse("unresolved-reference", n, "it refers to \(r.target), which is no function and no data.", "A build with symbols.")
            return nil
        }
    }

    /// Data, imports and slots of the same build are where they are; only jump tables move along with their code.
    private func resolveToItself(_ r: Reference) -> Answer? {
        switch c.new.place(r.target) {
        case .function: nil
        case .data where c.newData.tables[r.target] != nil && r.kind == .address: nil
        case .plt(let key): (.old(r.target, key + "@plt"), 0, .plt)
        case .slot: (.old(r.target, "got"), 0, .got)
        case .data, .nowhere: (.old(r.target, "data"), 0, .symbol)
        }
    }

    private mutating func resolveCode(_ r: Reference, _ g: Int, _ offset: Int, _ n: Int) -> Answer? {
        let name = c.new.name(g)
        if moved.contains(g) {
            // A function pointer that old code or data may hold keeps the old address, which is hooked: both must agree on
            // who it is. One that nobody holds yet goes to the new code at once.
            if r.kind == .address, offset == 0, let o = c.match.oldOf[g], oldTaken.contains(o) {
                return (.old(c.old.functions[o].start, c.old.name(o)), 0, .code)
            }
            return (.moved(g, offset: offset), 0, .moved)
        }
        guard let o = c.match.oldOf[g] else {
            refuse(
                "unresolved-reference", n, "it goes to \(name), which the old build does not have.",
                "Report this: the function should be in the patch.")
            return nil
        }
        guard c.match.basis[g] != .similarity else {
            refuse("unconfirmed-function", n, "it goes to \(name), known only by likeness.", "A build with symbols.")
            return nil
        }
        return (.old(c.old.functions[o].start, c.old.name(o)), offset, .code)
    }

    private mutating func resolvePLT(_ key: String, _ n: Int) -> Answer? {
        if let there = c.old.pltByKey[key] { return (.old(there, key + "@plt"), 0, .plt) }
        if key.hasPrefix("*0x"), let x = UInt64(key.dropFirst(3), radix: 16), let g = c.new.function(at: LinkAddress(x)),
            let o = c.match.oldOf[g], let there = c.old.pltByKey["*\(hex(c.old.functions[o].start.value))"]
        {
            return (.old(there, c.old.name(o) + "@plt"), 0, .plt)
        }
        if let slot = c.old.slotByKey[.symbol(key)] ?? c.old.slotByKey[.jumpSlot(key)] { return (.thunk(slot: slot, key), 0, .got) }
        if isLendable(key) { return (.imported(key, isCall: true), 0, .imported) }
        // An exported function of the new build's own, that the old build does not have under any name: only the patch brings one.
        if let g = c.new.exportedByKey[key], moved.contains(g), c.match.oldOf[g] == nil, c.old.exportedByKey[key] == nil {
            return (.moved(g, offset: 0), 0, .moved)
        }
        refuse(
            "new-import", n, "it calls \(key), which the old build does not import.",
            "Install the fixed package and restart.")
        return nil
    }

    /// Whether any process that has the object must have what the symbol names, and can say where it is.
    private func isLendable(_ key: String) -> Bool {
        c.new.file.dynamicSymbols.contains { $0.key == key && !$0.isDefined && !$0.isWeak && $0.kind != .tls && $0.kind != .other }
    }

    private mutating func resolveSlot(_ key: SlotKey, _ r: Reference, _ n: Int) -> Answer? {
        switch key {
        case .relative(let target), .indirect(let target):
            let slots = c.old.slotByKey
            if let g = c.new.function(at: target), let o = c.match.oldOf[g], c.new.functions[g].start == target {
                let start = c.old.functions[o].start
                if let slot = slots[.relative(start)] ?? slots[.indirect(start)], c.old.isGOT(slot) { return (.old(slot, "got"), 0, .got) }
            } else if let there = c.provedOld(target), let slot = slots[.relative(there)], c.old.isGOT(slot) {
                return (.old(slot, "got"), 0, .got)
            }
        case .threadOffset("", _), .threadModule("", _), .other(Self.tlsDescriptor, "", _):
            // Local variables have no name: only unchanged code can tell that this place is still the same variable.
            if sameTLS, c.threadVotes[key, default: []].count >= 2, let slot = c.old.slotByKey[key], c.old.isGOT(slot) {
                return (.old(slot, "got"), 0, .votes)
            }
            refuse(
                "thread-local", n, "it uses a nameless thread-local variable; which one that is in the old build is not proved.",
                "A build with symbols, or restart.")
            return nil
        case .threadOffset, .threadModule, .other:
            if sameTLS, let slot = c.old.slotByKey[key], c.old.isGOT(slot) { return (.old(slot, "got"), 0, .got) }
        case .symbol(let symbol):
            if let slot = c.old.slotByKey[key] { return (.old(slot, "got." + symbol), 0, .got) }
            // A lazily bound slot is right for calls through it, not for taking the address.
            let flow = c.new.functions[n].instructions[r.instruction].flow
            if flow == .call || flow == .jump, let slot = c.old.slotByKey[.jumpSlot(symbol)] {
                return (.old(slot, "got." + symbol), 0, .got)
            }
            if isLendable(symbol) { return (.imported(symbol, isCall: false), 0, .imported) }
        case .jumpSlot(let symbol):
            if let slot = c.old.slotByKey[key] ?? c.old.slotByKey[.symbol(symbol)] { return (.old(slot, "got." + symbol), 0, .got) }
            if isLendable(symbol) { return (.imported(symbol, isCall: false), 0, .imported) }
        }
        refuse(
            "new-import", n, "it uses \(describe(key)), for which the old build has no slot.",
            "Not supported yet: install the fixed package and restart.")
        return nil
    }

    private func describe(_ key: SlotKey) -> String {
        switch key {
        case .symbol(let s), .jumpSlot(let s), .threadModule(let s, _): "the symbol \(s)"
        case .relative(let a), .indirect(let a): "the address \(a)"
        case .threadOffset(let s, let n): "thread-local \(s.isEmpty ? hex(n) : s)"
        case .other(let type, let s, _): "relocation type \(type) of \(s)"
        }
    }

    private var sameTLS: Bool {
        let a = c.old.file.segments.first { $0.type == Segment.tls }, b = c.new.file.segments.first { $0.type == Segment.tls }
        return a?.memorySize == b?.memorySize && a?.fileSize == b?.fileSize
    }

    // MARK: Data

    private mutating func resolveData(_ r: Reference, _ n: Int) -> Answer? {
        guard let section = c.new.file.section(at: r.target) else { return nil }
        if r.kind == .address, section.name.hasPrefix(".got") {
            refuse(
                "got-relative", n, "it computes addresses from the global offset table's own, by distances that differ between builds.",
                "Install the fixed package and restart.")
            return nil
        }
        if section.isWritable { return resolveWritable(r, section, n) }
        if let table = c.newData.tables[r.target], c.new.functions[n].instructions[r.instruction].takesAddress {
            if table.isCut {
                refuse(
                    "computed-jump", n, "where its jump table at \(r.target) ends cannot be told.", "Install the fixed package and restart."
                )
                return nil
            }
            return (.table(r.target), 0, .table)
        }
        let answer = resolveReadOnly(r, section, n)
        if answer != nil, c.newData.tables[r.target] == nil, looksLikeJumpTable(r, n) {
            refuse(
                "computed-jump", n, "it seems to jump through a table at \(r.target) in a way that is not understood.",
                "Install the fixed package and restart.")
            return nil
        }
        return answer
    }

    /// Distances from the address that lead to instructions of the function itself: a table that only the function's own
    /// code can use, whatever else it looks like.
    private func looksLikeJumpTable(_ r: Reference, _ n: Int) -> Bool {
        let f = c.new.functions[n]
        guard r.kind == .address, f.instructions.contains(where: { $0.flow == .jump && $0.isIndirect && $0.ripRelative == nil }) else {
            return false
        }
        return (0..<2).allSatisfy { i in
            guard let raw = c.new.file.read(r.target + i * 4, 4) else { return false }
            let distance = Int(Int32(bitPattern: raw.reversed().reduce(UInt32(0)) { $0 << 8 | UInt32($1) }))
            let target = r.target + distance
            return f.contains(target) && f.startsInstruction(at: target - f.start)
        }
    }

    private mutating func resolveWritable(_ r: Reference, _ section: Section, _ n: Int) -> Answer? {
        let a = r.target
        if let there = c.oldBySymbol(a) { return (.old(there, c.new.objectAt[a]?.name ?? "data"), 0, .symbol) }
        switch c.map.answer(a) {
        case .one(let there, let functions) where functions >= 2:
            return hasGrown(r, there, section, n) ? nil : (.old(there, "data"), 0, .votes)
        case .conflict:
            refuse(
                "conflicting-votes", n, "unchanged code disagrees about which old data \(a) is.",
                "A build with symbols or debug information.")
            return nil
        default: break
        }
        if let there = c.provedOld(a) { return (.old(there, "data"), 0, .relocation) }
        // Inside an object that has a name; one of a function's own only where the sources say that none of these came or went. One
        // unchanged function that says otherwise is enough against it.
        if let there = c.oldBySymbol(into: r, localsToo: declarationsAgree),
            c.map.votes[a].map({ $0.count == 1 && $0[there] != nil }) ?? true
        {
            return (.old(there, "data"), 0, .symbol)
        }
        // Relocated read-only data cannot hold state, so one vote is enough where every word corresponds.
        if section.name == ".data.rel.ro", case .one(let there, _) = c.map.answer(a), sameRelocated(there, a, section) {
            return (.old(there, "data"), 0, .votes)
        }
        if let there = places.old(a, in: section) {
            if hasGrown(r, there, section, n) { return nil }
            if !declarationsAgree {
                note(
                    Finding(
                        "data-by-place", c.new.name(n),
                        "the data at \(section.name)+\(hex(a - section.address)) is known by its place and its use in changed code only.",
                        remedy: "Check in the source that no variable of the changed functions got another meaning.", verdict: .review))
            }
            return (.old(there, "data"), 0, .place)
        }
        if let region = freshRegion(a, section) {
            let size = region.upperBound - region.lowerBound
            if freshAddresses.updateValue(size, forKey: region.lowerBound) == nil { checkIsNoTail(region, section) }
            return (.fresh(region.lowerBound, size: size), a - region.lowerBound, .fresh)
        }
        let voters = c.map.votes[a].map { " (\($0.values.map(\.count).max() ?? 0) unchanged function refers to it)" } ?? ""
        refuse(
            "unproved-data", n,
            "it refers to data at \(section.name)+\(hex(a - section.address)); what that is in the old build is not proved\(voters).",
            "A build with symbols or debug information.")
        return nil
    }

    /// An object whose address is taken may be used to its end: it must not have got longer.
    private mutating func hasGrown(_ r: Reference, _ there: LinkAddress, _ section: Section, _ n: Int) -> Bool {
        let a = r.target
        let room = c.newData.next(after: a, in: c.new) - a, before = c.oldData.next(after: there, in: c.old) - there
        guard r.kind == .address, room > before + 32 else { return false }
        refuse(
            "layout-data-grew", n, "the data at \(section.name)+\(hex(a - section.address)) has room for \(room) bytes, and had \(before).",
            "An object may have grown: a build with symbols or debug information would tell.")
        return true
    }

    /// True when each word up to the next thing anybody refers to is the same, pointers by what they point to.
    private func sameRelocated(_ x: LinkAddress, _ y: LinkAddress, _ section: Section) -> Bool {
        guard c.old.file.section(at: x)?.name == section.name else { return false }
        let size = min(c.newData.next(after: y, in: c.new) - y, c.oldData.next(after: x, in: c.old) - x)
        return size > 0 && DataComparison.firstDifference(c, x, y, size) == nil
    }

    /// Where data lies that only the new build has: between neighbours that moved apart by as much, behind all that the
    /// old build had between them. Whole, because nobody knows how many objects it is.
    private func freshRegion(_ a: LinkAddress, _ section: Section) -> Range<LinkAddress>? {
        // Nobody unchanged may refer to it.
        guard c.map.votes[a] == nil, let there = c.old.file.section(section.name) else { return nil }
        let (below, above) = c.map.neighbours(a)
        let low = below.flatMap { section.contains($0.new) && there.contains($0.old) ? $0 : nil }
        let high = above.flatMap { section.contains($0.new) && there.contains($0.old) ? $0 : nil }
        let lowNew = low?.new ?? section.address, lowOld = low?.old ?? there.address
        let highNew = high?.new ?? section.end, highOld = high?.old ?? there.end
        let room = highOld - lowOld
        guard room >= 0, lowNew + room <= a, a < highNew else { return nil }
        // An old address between the neighbours that nothing maps to could be the same object, changed.
        let strangers = c.oldData.seams.contains { $0 > lowOld && $0 < highOld && !c.map.mappedOld.contains($0) }
        return strangers ? nil : lowNew + room..<highNew
    }

    /// What looks new may be the end of the object before it, which grew: then moved code reaches it from there.
    private mutating func checkIsNoTail(_ region: Range<LinkAddress>, _ section: Section) {
        guard let base = c.newData.taken.last(where: { $0 < region.lowerBound }), section.contains(base) else { return }
        let near = region.lowerBound - base, far = region.upperBound - base
        for n in moved.functions {
            let reaches = c.new.functions[n].instructions.contains { i in
                if let m = i.memory, m.base != nil, !i.usesSegment, m.displacement >= near, m.displacement < far { return true }
                return i.immediate.map { $0.value > near && $0.value <= far } ?? false
            }
            guard reaches else { continue }
            refuse(
                "layout-data-grew", n,
                "data at \(section.name)+\(hex(region.lowerBound - section.address)) is new, and may be the end of an object \(near) bytes before it that grew.",
                "A build with symbols or debug information would tell.")
            return
        }
    }

    private mutating func resolveReadOnly(_ r: Reference, _ section: Section, _ n: Int) -> Answer? {
        let a = r.target
        // What stands for it in the old build must be the same as far as the new code may read.
        var reach = c.newData.reach(from: a, r.use ?? .indexed, in: c.new)
        if case .access(let bytes, _) = r.kind { reach = a..<a + max(bytes, 1) }
        if reach.isEmpty { reach = a..<a + min(1, section.end - a) }
        guard c.new.file.read(reach.lowerBound, reach.upperBound - reach.lowerBound) != nil else {
            refuse("unresolved-reference", n, "read-only data at \(a) is not in the file.", "The file as its package ships it.")
            return nil
        }
        if let there = c.oldBySymbol(a), isSame(there, reach) { return (.old(there, c.new.objectAt[a]?.name ?? "data"), 0, .symbol) }
        if case .one(let there, _) = c.map.answer(a), isSame(there, reach) { return (.old(there, "data"), 0, .votes) }
        let (below, above) = c.map.neighbours(a)
        if let below, let above, below.new - below.old == above.new - above.old {
            let there = a + (below.old - below.new)
            if c.old.file.section(at: there)?.name == section.name, isSame(there, reach) { return (.old(there, "data"), 0, .interval) }
        }
        if reach.upperBound - a >= 4, let there = sameContent(reach, section.name) { return (.old(there, "data"), 0, .content) }
        guard reach.upperBound - a <= Self.copyMax else {
            refuse("unresolved-reference", n, "new read-only data at \(a) is larger than \(Self.copyMax) bytes.", "Nothing: restart.")
            return nil
        }
        return (.copy(a, reach), 0, .copied)
    }

    /// True when the old bytes at `there` are those of `reach` in the new build.
    private func isSame(_ there: LinkAddress, _ reach: Range<LinkAddress>) -> Bool {
        let count = reach.upperBound - reach.lowerBound
        guard let x = c.old.file.read(there, count) else { return false }
        return x == c.new.file.read(reach.lowerBound, count)
    }

    /// The one place in the old section where something begins and these bytes stand; nil when there are more.
    private func sameContent(_ reach: Range<LinkAddress>, _ name: String) -> LinkAddress? {
        guard let section = c.old.file.section(name), !section.isWritable else { return nil }
        var found: LinkAddress?
        for seam in c.oldData.seams where section.contains(seam) {
            guard isSame(seam, reach) else { continue }
            if found != nil { return nil }
            found = seam
        }
        return found
    }
}
