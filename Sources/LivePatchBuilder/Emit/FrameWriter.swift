// The part of a patch that unwinds it: records of `.eh_frame`, and the tables of what its functions catch.

import ELF
import LivePatch

extension PatchWriter {
    mutating func writeUnwind() {
        var commonOffset: [Int: Int] = [:]
        for n in moved.functions {
            guard let frame = c.new.functions[n].frame.map({ c.new.unwind.frames[$0] }) else { continue }
            let common = c.new.unwind.common[frame.common]
            // pcrel | sdata4, what gcc and clang write; another encoding would need another relocation.
            guard common.pointerEncoding == 0x1b, common.lsdaEncoding ?? 0x1b == 0x1b, frame.record.count >= 16 else {
                refuse("unwind-encoding", n, "its unwind data uses pointer encoding \(hex(common.pointerEncoding)).")
                continue
            }
            guard let exceptions = exceptionSymbols(n, frame, common) else { continue }
            let start: Int
            if let known = commonOffset[frame.common] {
                start = known
            } else {
                start = contents[.unwind].count
                commonOffset[frame.common] = start
                var record = Array(c.new.file.bytes.storage[common.record])
                if let field = common.personalityField, let routine = exceptions.routine {
                    clear(&record, field - common.record.lowerBound)
                    contents.relocations.append(
                        PatchRelocation(.unwind, at: start + field - common.record.lowerBound, .pc32, symbol: routine, addend: 0))
                }
                contents[.unwind] += record
            }
            let at = contents[.unwind].count
            var record = Array(c.new.file.bytes.storage[frame.record])
            let back = UInt32(at + 4 - start)
            for k in 0..<4 {
                record[4 + k] = UInt8(truncatingIfNeeded: back >> UInt32(8 * k))
                record[8 + k] = 0
            }
            if let field = frame.lsdaField, let table = exceptions.table {
                clear(&record, field - frame.record.lowerBound)
                contents.relocations.append(
                    PatchRelocation(.unwind, at: at + field - frame.record.lowerBound, .pc32, symbol: table, addend: 0))
            }
            contents[.unwind] += record
            contents.relocations.append(PatchRelocation(.unwind, at: at + 8, .pc32, symbol: functionSymbol(n), addend: 0))
        }
    }

    private func clear(_ record: inout [UInt8], _ at: Int) { for k in at..<min(at + 4, record.count) { record[k] = 0 } }

    private mutating func refuse(_ code: String, _ n: Int, _ sentence: String) {
        findings.append(Finding(code, newName(n), sentence, remedy: "Install the fixed package and restart.", verdict: .refuse))
    }

    // MARK: Exceptions

    /// The word with the language's routine, and the copied table of what the function catches; nil when it is refused.
    private mutating func exceptionSymbols(
        _ n: Int, _ frame: FrameDescription, _ common: CommonInformation
    ) -> (routine: Int?, table: Int?)? {
        guard common.personality || frame.lsda != nil else { return (nil, nil) }
        hasHandlers = true
        guard let slot = common.personalitySlot, let routine = exceptionSlot(slot) else {
            refuse("exception-data", n, "the routine that handles its exceptions is not one that the old build imports.")
            return nil
        }
        guard let address = frame.lsda else { return (routine, nil) }
        switch c.newExceptions.tables[n] {
        case .understood(let table)?:
            guard let place = copyTable(table, n) else { return nil }
            return (
                routine,
                symbol(PatchSymbol("except_\(String(address.value, radix: 16))", .part(.readOnly, offset: place), size: table.size))
            )
        case .failed(let failure)?: refuse("exception-data", n, "its exception table cannot be copied: \(failure.sentence)")
        case nil: refuse("exception-data", n, "its exception table was not read.")
        }
        return nil
    }

    /// Copies what a function catches: offsets in it count from the function and stay; types are named by way of words of the
    /// old build. Returns the offset in the read-only part.
    private mutating func copyTable(_ table: ExceptionTable, _ n: Int) -> Int? {
        let f = c.new.functions[n]
        let base = table.landingBase ?? f.start
        for site in table.callSites {
            guard site.start + site.size <= f.size else {
                refuse("exception-data", n, "its exception table speaks of calls outside it.")
                return nil
            }
            // With a base of their own, landing pads lie in the other part of the function.
            guard let landing = site.landing else { continue }
            guard let g = c.new.function(at: base + landing), g == n || table.landingBase != nil && moved.contains(g) else {
                refuse("exception-data", n, "exceptions land outside it.")
                return nil
            }
        }
        align(.readOnly, to: 4)
        let place = contents[.readOnly].count
        var bytes = Array(c.new.file.read(table.address, table.size) ?? [])
        for field in stride(from: table.typeFields.lowerBound, to: table.typeFields.upperBound, by: 4) { clear(&bytes, field) }
        contents[.readOnly] += bytes
        if let field = table.landingField, let base = table.landingBase {
            guard let g = c.new.function(at: base), moved.contains(g) else {
                refuse("exception-data", n, "exceptions land outside the patch.")
                return nil
            }
            contents.relocations.append(
                PatchRelocation(
                    .readOnly, at: place + field, .pc32, symbol: functionSymbol(g), addend: Int64(base - c.new.functions[g].start)))
        }
        for (_, type) in table.types.sorted(by: { $0.key < $1.key }) {
            guard let slot = type.slot else { continue }
            guard let s = exceptionSlot(slot) else {
                refuse("exception-data", n, "it catches a type that is not proved to be one of the old build's.")
                return nil
            }
            contents.relocations.append(PatchRelocation(.readOnly, at: place + type.field, .pc32, symbol: s, addend: 0))
        }
        return place
    }

    /// A word that holds in the process what the new build's word at `slot` would: one of the old build's, or one of the patch's.
    private mutating func exceptionSlot(_ slot: LinkAddress) -> Int? {
        guard let key = c.new.relocationAt[slot].flatMap(c.new.key) else { return nil }
        func old(_ key: SlotKey, _ name: String) -> Int? {
            c.oldExceptions.slots[key].map { symbol(PatchSymbol("old.ref.\(name)", .old($0))) }
        }
        switch key {
        case .other(Relocation.abs64, let name, let addend) where !name.isEmpty:
            if let s = old(key, name) { return s }
            guard addend == 0 else { return nil }
            if let there = c.old.slotByKey[.symbol(name)], c.old.isGOT(there) { return symbol(PatchSymbol("old.got.\(name)", .old(there))) }
            guard let there = c.old.file.dynamicSymbols.first(where: { $0.isDefined && $0.key == name && $0.kind == .object }) else {
                return nil
            }
            return ownSlot(there.value, name)
        case .relative(let type):
            guard let there = c.oldType(type) else { return nil }
            let name = String(there.value, radix: 16)
            return old(.relative(there), name) ?? ownSlot(there, name)
        default: return nil
        }
    }

    private mutating func ownSlot(_ target: LinkAddress, _ name: String) -> Int {
        if let known = ownSlots[target] { return known }
        align(.relro, to: 8)
        let place = contents[.relro].count
        contents[.relro] += [UInt8](repeating: 0, count: 8)
        let there = symbol(PatchSymbol("old.type.\(name)", .old(target)))
        contents.relocations.append(PatchRelocation(.relro, at: place, .abs64, symbol: there, addend: 0))
        let s = symbol(PatchSymbol("ref_\(name)", .part(.relro, offset: place), size: 8))
        ownSlots[target] = s
        return s
    }
}
