// Puts the moved functions, what they need and how they are linked into the parts of a live patch.

import ELF
import LivePatch
import MachineCode

struct PatchWriter {
    let c: Comparison
    let moved: MovedCode
    private let hooks: Hooks
    private let oldTaken: Set<Int>
    var contents: PatchContents
    var findings: [Finding] = []
    /// New indices of functions with refusing findings.
    var refused: Set<Int> {
        let names = Set(findings.map(\.function))
        return Set(moved.functions.filter { names.contains(newName($0)) })
    }
    private var symbolIndex: [PatchSymbol: Int] = [:]
    private var textOffset: [Int: Int] = [:]
    /// New index and field of a short branch -> offset of its long jump.
    private var islands: [Int: [Int: Int]] = [:]
    /// Copied parts of the new build's read-only data, and where in the patch's they begin.
    private var copies: [(range: Range<LinkAddress>, offset: Int)] = []
    private var tables: [LinkAddress: Int] = [:]
    private var fresh: [LinkAddress: (part: Part, offset: Int)] = [:]
    private var thunks: [LinkAddress: Int] = [:]
    private var importSlots: [String: Int] = [:]
    private var importThunks: [String: Int] = [:]
    private var evidence: [Evidence: Int] = [:]
    /// Words of the patch with the addresses of the old build's types.
    var ownSlots: [LinkAddress: Int] = [:]
    /// Some moved function catches exceptions or cleans up after them.
    var hasHandlers = false

    init(_ c: Comparison, _ moved: MovedCode, _ hooks: Hooks, _ resolved: [Int: [Resolved]], oldTaken: Set<Int>, manifest: Manifest) {
        self.c = c
        self.moved = moved
        self.hooks = hooks
        self.oldTaken = oldTaken
        contents = PatchContents(manifest: manifest)
        var text: [UInt8] = []
        for n in moved.functions {
            while text.count % 16 != 0 { text.append(0xcc) }
            textOffset[n] = text.count
            text += c.new.file.read(c.new.functions[n].start, c.new.functions[n].size) ?? []
            // Behind it, a long jump for each branch that is too short to leave the function.
            for r in resolved[n] ?? [] where r.reference.fieldSize != 4 {
                islands[n, default: [:]][r.reference.field] = text.count
                text += [0xe9, 0, 0, 0, 0]
            }
        }
        contents[.text] = text
        placeCopies(resolved)
        for n in moved.functions { link(n, resolved[n] ?? []) }
        writeTables(resolved)
        writeUnwind()
        writeReplacements()
        contents.manifest.consistency = hooks.consistency
        contents.manifest.references = Dictionary(uniqueKeysWithValues: evidence.map { ($0.key.rawValue, $0.value) })
    }

    func newName(_ n: Int) -> String { c.new.name(n) }

    mutating func symbol(_ s: PatchSymbol) -> Int {
        if let known = symbolIndex[s] { return known }
        contents.symbols.append(s)
        symbolIndex[s] = contents.symbols.count - 1
        return contents.symbols.count - 1
    }

    mutating func functionSymbol(_ n: Int) -> Int {
        symbol(PatchSymbol(newName(n), .part(.text, offset: textOffset[n] ?? 0), isFunction: true, size: c.new.functions[n].size))
    }

    mutating func align(_ part: Part, to alignment: Int) {
        while contents[part].count % alignment != 0 { contents[part].append(part == .text ? 0xcc : 0) }
    }

    // MARK: Data

    private mutating func placeCopies(_ resolved: [Int: [Resolved]]) {
        var ranges: Set<Range<LinkAddress>> = [], freshSizes: [LinkAddress: Int] = [:]
        for r in resolved.values.joined() {
            switch r.destination {
            case .copy(_, let range): ranges.insert(range)
            case .fresh(let a, let size): freshSizes[a] = size
            default: break
            }
        }
        // Ranges that touch are one: nothing is copied twice, and distances inside stay what they are.
        var windows: [Range<LinkAddress>] = []
        for range in ranges.sorted(by: { ($0.lowerBound, $0.upperBound) < ($1.lowerBound, $1.upperBound) }) {
            if let last = windows.last, last.upperBound >= range.lowerBound {
                windows[windows.count - 1] = last.lowerBound..<max(last.upperBound, range.upperBound)
            } else {
                windows.append(range)
            }
        }
        for window in windows {
            // The same position within 64 bytes as in the new build, so that aligned loads stay aligned.
            while contents[.readOnly].count % 64 != Int(window.lowerBound.value % 64) { contents[.readOnly].append(0) }
            copies.append((window, contents[.readOnly].count))
            contents[.readOnly] += c.new.file.read(window.lowerBound, window.upperBound - window.lowerBound) ?? []
        }
        // New data keeps its position within 64 bytes too.
        func aligned(_ count: Int, _ a: LinkAddress) -> Int { count + Int((a.value &- UInt64(count)) % 64) }
        for (a, size) in freshSizes.sorted(by: { $0.key < $1.key }) {
            guard let section = c.new.file.section(at: a) else { continue }
            if section.hasBytes {
                contents[.data] += [UInt8](repeating: 0, count: aligned(contents[.data].count, a) - contents[.data].count)
                fresh[a] = (.data, contents[.data].count)
                contents[.data] += c.new.file.read(a, size).map(Array.init) ?? [UInt8](repeating: 0, count: size)
            } else {
                contents.zeroSize = aligned(contents.zeroSize, a)
                fresh[a] = (.zero, contents.zeroSize)
                contents.zeroSize += size
            }
        }
        linkFresh(freshSizes)
    }

    /// Pointers in new data: to functions and to data of the old build, by the same proofs as for code.
    private mutating func linkFresh(_ sizes: [LinkAddress: Int]) {
        for (a, size) in sizes.sorted(by: { $0.key < $1.key }) {
            for at in 0..<size {
                guard let r = c.new.relocationAt[a + at], let place = fresh[a] else { continue }
                let target = LinkAddress(UInt64(bitPattern: r.addend))
                guard r.type == Relocation.relative, let g = c.new.function(at: target), c.new.functions[g].start == target else {
                    findings.append(
                        Finding(
                            "fresh-data-pointer", "data at \(a)", "new writable data holds a pointer that is not to a function.",
                            remedy: "Not supported yet: install the fixed package and restart.", verdict: .refuse))
                    continue
                }
                let s: Int
                guard moved.contains(g) || c.match.oldOf[g] != nil && c.match.basis[g].map({ $0 <= .references }) ?? false else {
                    findings.append(
                        Finding(
                            "fresh-data-pointer", "data at \(a)",
                            "new writable data points to \(newName(g)), which only the new build has and no moved code names.",
                            remedy: "Not supported yet: install the fixed package and restart.", verdict: .refuse))
                    continue
                }
                if let o = c.match.oldOf[g], oldTaken.contains(o) || !moved.contains(g) {
                    s = symbol(PatchSymbol("old." + c.old.name(o), .old(c.old.functions[o].start)))
                } else {
                    s = functionSymbol(g)
                }
                contents.relocations.append(PatchRelocation(place.part, at: place.offset + at, .abs64, symbol: s, addend: 0))
            }
        }
    }

    // MARK: Code

    private mutating func link(_ n: Int, _ resolved: [Resolved]) {
        let base = textOffset[n] ?? 0
        _ = functionSymbol(n)
        for r in resolved {
            evidence[r.evidence, default: 0] += 1
            let field = base + r.reference.field
            if let island = islands[n]?[r.reference.field] {
                contents[.text][field] = UInt8(island - (base + r.reference.end))
                let (s, offset) = destination(r)
                contents.relocations.append(PatchRelocation(.text, at: island + 1, .pc32, symbol: s, addend: Int64(offset - 4)))
                continue
            }
            for k in 0..<4 where field + k < contents[.text].count { contents[.text][field + k] = 0 }
            let (s, offset) = destination(r)
            // The processor adds the distance to the instruction's end, the relocation counts from the field.
            let addend = Int64(offset - (r.reference.end - r.reference.field))
            contents.relocations.append(PatchRelocation(.text, at: field, .pc32, symbol: s, addend: addend))
        }
    }

    private mutating func destination(_ r: Resolved) -> (symbol: Int, offset: Int) {
        switch r.destination {
        case .old(let a, let name):
            let unique = name == "data" || name == "got" ? "\(name)_\(String(a.value, radix: 16))" : name
            return (symbol(PatchSymbol("old." + unique, .old(a))), r.offset)
        case .moved(let g, let offset): return (functionSymbol(g), offset)
        case .copy(let a, _):
            let copy = copies.first { $0.range.lowerBound <= a && a <= $0.range.upperBound }
            let offset = copy.map { $0.offset + (a - $0.range.lowerBound) } ?? 0
            return (symbol(PatchSymbol("ro_\(String(a.value, radix: 16))", .part(.readOnly, offset: offset))), r.offset)
        case .fresh(let a, let size):
            let place = fresh[a]
            return (
                symbol(
                    PatchSymbol("new_\(String(a.value, radix: 16))", .part(place?.part ?? .data, offset: place?.offset ?? 0), size: size)),
                r.offset
            )
        case .table(let a):
            if tables[a] == nil {
                align(.readOnly, to: 4)
                tables[a] = contents[.readOnly].count
                contents[.readOnly] += [UInt8](repeating: 0, count: 4 * (c.newData.tables[a]?.targets.count ?? 0))
            }
            let size = 4 * (c.newData.tables[a]?.targets.count ?? 0)
            return (
                symbol(PatchSymbol("table_\(String(a.value, radix: 16))", .part(.readOnly, offset: tables[a] ?? 0), size: size)), r.offset
            )
        case .thunk(let slot, let key):
            let place: Int
            if let known = thunks[slot] {
                place = known
            } else {
                align(.text, to: 16)
                place = contents[.text].count
                thunks[slot] = place
                contents[.text] += [0xff, 0x25, 0, 0, 0, 0]
                let s = symbol(PatchSymbol("old.got." + key, .old(slot)))
                contents.relocations.append(PatchRelocation(.text, at: place + 2, .pc32, symbol: s, addend: -4))
            }
            return (symbol(PatchSymbol(key + "@thunk", .part(.text, offset: place), isFunction: true, size: 6)), r.offset)
        case .imported(let key, isCall: false):
            return (symbol(PatchSymbol("slot." + key, .part(.relro, offset: importSlot(key)), size: 8)), r.offset)
        case .imported(let key, isCall: true):
            let place: Int
            if let known = importThunks[key] {
                place = known
            } else {
                align(.text, to: 16)
                place = contents[.text].count
                importThunks[key] = place
                contents[.text] += [0xff, 0x25, 0, 0, 0, 0]
                let slot = symbol(PatchSymbol("slot." + key, .part(.relro, offset: importSlot(key)), size: 8))
                contents.relocations.append(PatchRelocation(.text, at: place + 2, .pc32, symbol: slot, addend: -4))
            }
            return (symbol(PatchSymbol(key + "@thunk", .part(.text, offset: place), isFunction: true, size: 6)), r.offset)
        }
    }

    /// A word of the patch that holds where an import is in the process.
    private mutating func importSlot(_ key: String) -> Int {
        if let known = importSlots[key] { return known }
        align(.relro, to: 8)
        let place = contents[.relro].count
        importSlots[key] = place
        contents[.relro] += [UInt8](repeating: 0, count: 8)
        contents.relocations.append(PatchRelocation(.relro, at: place, .abs64, symbol: symbol(PatchSymbol(key, .imported)), addend: 0))
        return place
    }

    private mutating func writeTables(_ resolved: [Int: [Resolved]]) {
        for (a, offset) in tables.sorted(by: { $0.key < $1.key }) {
            for (i, target) in (c.newData.tables[a]?.targets ?? []).enumerated() {
                guard let g = c.new.function(at: target), moved.contains(g) else {
                    let owner = c.newData.tableOwner[a].map { newName($0) } ?? "\(a)"
                    findings.append(
                        Finding(
                            "unresolved-reference", owner, "its jump table goes to code outside the patch.",
                            remedy: "Install the fixed package and restart.", verdict: .refuse))
                    continue
                }
                let inside = target - c.new.functions[g].start
                // An entry is the distance from the table's start, a relocation counts from the entry.
                contents.relocations.append(
                    PatchRelocation(.readOnly, at: offset + i * 4, .pc32, symbol: functionSymbol(g), addend: Int64(inside + i * 4)))
            }
        }
    }

    // MARK: Replacements

    private mutating func writeReplacements() {
        for n in moved.functions {
            let f = c.new.functions[n], o = c.match.oldOf[n], isHooked = hooks.hooked.contains(n)
            let old = o.map { c.old.functions[$0] }
            let oldCode = old.flatMap { c.old.file.read($0.start, $0.size) } ?? ArraySlice<UInt8>()
            let (site, bridge) = hooks.sites[n] ?? (0, [])
            let room =
                old.flatMap { c.old.file.read($0.start + site, Replacement.siteBytes) }
                ?? oldCode.dropFirst(site).prefix(Replacement.siteBytes)
            contents.replacements.append(
                Replacement(
                    old: old?.start, oldSize: old?.size ?? 0, newOffset: textOffset[n] ?? 0, newSize: f.size, isHooked: isHooked,
                    siteOffset: site, bridgeBytes: bridge,
                    oldSiteBytes: Array(room), oldHash: old == nil ? [UInt8](repeating: 0, count: 32) : sha256(oldCode)))
            contents.manifest.functions.append(
                ReplacedFunction(
                    name: newName(n), oldAddress: old?.start.value ?? 0, oldSize: old?.size ?? 0, newSize: f.size, isHooked: isHooked,
                    why: moved.reasons[n] ?? ""))
        }
    }
}
