// Compares what data starts as: initial values, and pointers that the loader fills in.

import ELF
import LivePatch

struct DataComparison {
    /// Writable sections with initial contents are live state, or tables that old code reads. The loader's own are not compared.
    private static func sections(_ c: Comparison) -> [String] {
        func names(_ image: CodeImage) -> [String] {
            image.file.sections.filter {
                $0.isAllocated && $0.isWritable && $0.hasBytes && $0.size > 0 && !$0.name.hasPrefix(".got") && $0.name != ".dynamic"
            }
            .map(\.name)
        }
        return Set(names(c.old) + names(c.new)).sorted()
    }

    /// Offset of the first byte or pointer that differs within `size` bytes; nil when none does.
    static func firstDifference(_ c: Comparison, _ x: LinkAddress, _ y: LinkAddress, _ size: Int) -> Int? {
        guard let a = c.old.file.read(x, size), let b = c.new.file.read(y, size) else { return nil }
        var at = 0
        while at < size {
            let r = c.old.relocationAt[x + at], s = c.new.relocationAt[y + at]
            if r != nil || s != nil {
                guard let r, let s, samePointer(c, r, s) else { return at }
                at += 8
                continue
            }
            if a[a.startIndex + at] != b[b.startIndex + at] { return at }
            at += 1
        }
        return nil
    }

    private static func samePointer(_ c: Comparison, _ r: Relocation, _ s: Relocation) -> Bool {
        guard r.type == s.type else { return false }
        switch r.type {
        case Relocation.relative, Relocation.irelative:
            return c.corresponds(LinkAddress(UInt64(bitPattern: r.addend)), LinkAddress(UInt64(bitPattern: s.addend)))
        default: return c.old.symbolKey(r.symbol) == c.new.symbolKey(s.symbol) && r.addend == s.addend
        }
    }

    /// Findings about data that starts differently, or that grew without a new object to account for it.
    static func findings(_ c: Comparison, fresh: [LinkAddress: Int]) -> [Finding] {
        var result: [Finding] = []
        for name in sections(c) {
            guard let b = c.new.file.section(name) else {
                if let a = c.old.file.section(name), a.size > 0 { result.append(changed(name, "the section is gone")) }
                continue
            }
            guard let a = c.old.file.section(name) else {
                let accounted = fresh.keys.contains { b.contains($0) }
                if b.size > 0, !accounted { result.append(changed(name, "only the new build has this section")) }
                continue
            }
            result += compare(c, a, b, fresh)
        }
        for name in [".data", ".bss"] {
            guard let b = c.new.file.section(name) else { continue }
            let grown = b.size - (c.old.file.section(name)?.size ?? 0)
            let accounted = fresh.filter { b.contains($0.key) }.reduce(0) { $0 + $1.value }
            if grown > accounted + (accounted > 0 ? 64 : 0) {
                result.append(
                    Finding(
                        "layout-data-grew", name, "\(name) grew by \(grown) bytes and new objects account for \(accounted).",
                        remedy: "An object changed its layout: debug information of both builds would show which.", verdict: .refuse))
            }
        }
        result += grownGaps(c, fresh)
        for (name, s) in c.old.objectByKey.sorted(by: { $0.key < $1.key }) {
            guard let t = c.new.objectByKey[name], s.size != t.size, c.new.file.section(at: t.value)?.isWritable ?? false else { continue }
            result.append(
                Finding(
                    "layout-object-size", name, "the data object \(name) has \(t.size) bytes instead of \(s.size).",
                    remedy: "Its layout changed: restart.", verdict: .refuse))
        }
        let t = c.old.file.segments.first { $0.type == Segment.tls }, u = c.new.file.segments.first { $0.type == Segment.tls }
        if t?.memorySize != u?.memorySize || t?.fileSize != u?.fileSize {
            result.append(
                Finding(
                    "tls-changed", "thread-local storage", "the thread-local template changed its size.",
                    remedy: "Running threads keep the old one: restart.", verdict: .refuse))
        }
        return result
    }

    /// Between two addresses that unchanged code agrees on, data that is not new may not take more room than before:
    /// whatever stands there got longer, even if something else went away.
    private static func grownGaps(_ c: Comparison, _ fresh: [LinkAddress: Int]) -> [Finding] {
        var result: [Finding] = []
        for b in c.new.file.sections where b.isAllocated && b.isWritable && !b.isTLS && !b.name.hasPrefix(".got") && b.name != ".dynamic" {
            guard let a = c.old.file.section(b.name), a.size > 0, b.size > 0 else { continue }
            var last = (new: b.address, old: a.address)
            for next in c.map.agreed.filter({ b.contains($0.new) && a.contains($0.old) }) + [(new: b.end, old: a.end)] {
                defer { last = next }
                guard next.old >= last.old else { continue }
                let brought = fresh.filter { $0.key >= last.new && $0.key < next.new }.reduce(0) { $0 + $1.value }
                let growth = (next.new - last.new) - (next.old - last.old) - brought
                // The linker may have had to leave more room before something aligned.
                let alignment: Int = [32, 16, 8, 4].first { next.new.value % UInt64($0) == 0 && next.old.value % UInt64($0) == 0 } ?? 1
                guard growth > 0, growth >= alignment || next.new == b.end else { continue }
                result.append(
                    Finding(
                        "layout-data-grew", "\(b.name)+\(hex(last.new - b.address))",
                        "the data there has \(growth) bytes more than in the old build, and no new object accounts for it.",
                        remedy: "An object changed its layout: debug information of both builds would show which.", verdict: .refuse))
            }
        }
        return result
    }

    private static func changed(_ name: String, _ sentence: String) -> Finding {
        Finding(
            name.hasPrefix(".init") || name.hasPrefix(".fini") ? "startup-changed" : "initial-data-changed", name, sentence + ".",
            remedy: "Live data keeps the old values: restart, or adapt the fix so that its code brings the new ones.", verdict: .refuse)
    }

    private static func compare(_ c: Comparison, _ a: Section, _ b: Section, _ fresh: [LinkAddress: Int]) -> [Finding] {
        if a.size == b.size {
            var texts: [Finding] = [], from = 0
            while from < a.size, let at = firstDifference(c, a.address + from, b.address + from, a.size - from).map({ from + $0 }) {
                guard let (text, end) = textDifference(c, a, b, at) else {
                    return [changed(a.name, "initial data at \(a.name)+\(hex(at))\(objectName(c, b.address + at)) differs")]
                }
                texts.append(text)
                from = end
            }
            return texts
        }
        // The common start and end; what is left of the old section between them has changed.
        let common = min(a.size, b.size)
        let head = (firstDifference(c, a.address, b.address, common) ?? common) & ~7
        var tail = 0
        while tail + 8 <= common - head, firstDifference(c, a.end + -(tail + 8), b.end + -(tail + 8), 8) == nil { tail += 8 }
        if a.size - head - tail > 0 {
            return [changed(a.name, "initial data at \(a.name)+\(hex(head))\(objectName(c, b.address + head)) differs")]
        }
        // Only additions: they must be objects that the patch brings along, and padding.
        let added = b.address + head..<b.address + (b.size - tail)
        let brought = fresh.filter { b.contains($0.key) }.map { $0.key..<$0.key + $0.value }
        let isAccounted = (0..<b.size - tail - head).allSatisfy { at in
            let a = added.lowerBound + at
            if brought.contains(where: { $0.contains(a) }) { return true }
            return c.new.relocationAt[a] == nil && c.new.file.read(a, 1)?.first == 0
        }
        if !brought.isEmpty, isAccounted { return [] }
        return [changed(a.name, "\(b.size - a.size) bytes were added at \(a.name)+\(hex(head))")]
    }

    /// Shorter letters without a name may be numbers.
    private static let tellingText = 8
    private static let textMax = 1 << 16

    /// What differs at this place of a section, if that is a text or a pointer to one: by the name that both builds have for it, or
    /// by its length. With where it ends, from the section's start. Only a person knows whether it may stay what it was: a version may,
    /// a setting may not.
    private static func textDifference(_ c: Comparison, _ a: Section, _ b: Section, _ at: Int) -> (Finding, end: Int)? {
        func finding(_ name: String, _ before: String, _ after: String) -> Finding? {
            // The same text: what differs is something else behind the pointer.
            guard before != after else { return nil }
            return Finding(
                "initial-text-changed", name,
                "it starts as \"\(shown(after))\" instead of \"\(shown(before))\", and running processes keep theirs.",
                remedy: "Decide whether the fix lies in this text: a version may stay what it was, a setting may not.", verdict: .review)
        }
        if let s = c.new.object(around: b.address + at), s.value >= b.address, s.size <= b.end - s.value {
            guard let there = c.oldBySymbol(s.value), there - a.address == s.value - b.address,
                let before = pointedText(c.old, there, s.size) ?? text(c.old, there, s.size),
                let after = pointedText(c.new, s.value, s.size) ?? text(c.new, s.value, s.size),
                let found = finding(s.name, before, after)
            else { return nil }
            return (found, s.value + s.size - b.address)
        }
        let name = "\(b.name)+\(hex(at))"
        if let before = pointedText(c.old, a.address + at, 8), let after = pointedText(c.new, b.address + at, 8) {
            guard min(before.utf8.count, after.utf8.count) >= tellingText, let found = finding(name, before, after) else { return nil }
            return (found, at + 8)
        }
        // Without a name and a pointer: as long as before, from the last byte that is no letter to the next NUL.
        guard let x = surroundingText(c.old, a, at), let y = surroundingText(c.new, b, at), x.range == y.range,
            let found = finding("\(b.name)+\(hex(y.range.lowerBound))", x.text, y.text)
        else { return nil }
        return (found, y.range.upperBound)
    }

    private static func isLetter(_ byte: UInt8) -> Bool { byte >= 0x20 && byte < 0x7f }

    private static func shown(_ text: String) -> String { text.count > 60 ? text.prefix(57) + "…" : text }

    /// The text that the pointer at `a`, which is all of the object, leads to.
    private static func pointedText(_ image: CodeImage, _ a: LinkAddress, _ size: Int) -> String? {
        guard size == 8, let r = image.relocationAt[a], r.type == Relocation.relative else { return nil }
        let target = LinkAddress(UInt64(bitPattern: r.addend))
        guard let section = image.file.section(at: target), !section.isWritable, !section.isExecutable,
            let bytes = image.file.read(target, min(section.end - target, textMax)), let nul = bytes.firstIndex(of: 0),
            nul > bytes.startIndex
        else { return nil }
        let letters = bytes[..<nul]
        return letters.allSatisfy { isLetter($0) || $0 == 9 || $0 == 10 } ? String(decoding: letters, as: UTF8.self) : nil
    }

    /// The text that fills the object at `a`, but for NULs behind it.
    private static func text(_ image: CodeImage, _ a: LinkAddress, _ size: Int) -> String? {
        guard size > 1, !(0..<size).contains(where: { image.relocationAt[a + $0] != nil }), let bytes = image.file.read(a, size),
            let nul = bytes.firstIndex(of: 0), nul > bytes.startIndex, bytes[..<nul].allSatisfy(isLetter),
            bytes[nul...].allSatisfy({ $0 == 0 })
        else { return nil }
        return String(decoding: bytes[..<nul], as: UTF8.self)
    }

    /// The letters around a place of a section, with a NUL behind them.
    private static func surroundingText(_ image: CodeImage, _ section: Section, _ at: Int) -> (range: Range<Int>, text: String)? {
        func letter(_ k: Int) -> Bool {
            image.relocationAt[section.address + k] == nil && (image.file.read(section.address + k, 1)?.first).map(isLetter) ?? false
        }
        var low = at, high = at
        while low > 0, at - low < textMax, letter(low - 1) { low -= 1 }
        while high < section.size, high - at < textMax, letter(high) { high += 1 }
        guard high > at, high - low >= tellingText, high < section.size, image.file.read(section.address + high, 1)?.first == 0,
            let bytes = image.file.read(section.address + low, high - low)
        else { return nil }
        return (low..<high + 1, String(decoding: bytes, as: UTF8.self))
    }

    private static func objectName(_ c: Comparison, _ a: LinkAddress) -> String {
        for s in c.new.objectAt.values where a >= s.value && a < s.value + s.size { return " (\(s.name))" }
        return ""
    }
}
