// How far from an address read-only data may be read. Stripped files do not say where objects end: a string ends at its
// NUL, a jump table is known, and anything else goes on until something begins that is surely another object.

import ELF

extension DataLayout {
    /// An array that is walked to an end is at most so long.
    static let walkMax = 1 << 20
    /// Code with an index may start from an address so far below the array (`table[c - 'A']`).
    static let slack = 1024
    static let rowMax = 256
    /// Only longer text may be followed by zeros: small numbers look like letters.
    static let tellingText = 8
    /// Zeros between two objects, at most.
    static let paddingMax = 31

    /// The bytes that may be read through an address. `use` is nil where a pointer in data holds it.
    func reach(from a: LinkAddress, _ use: AddressUse?, in image: CodeImage) -> Range<LinkAddress> {
        guard let section = image.file.section(at: a) else { return a..<a }
        switch use {
        case .compared: return a..<a
        case .indexed:
            let end = max(objectEnd(a, in: image), rowsEnd(a, in: image))
            // Nobody indexes the middle of a text: the array stands farther on.
            return a..<(isInsideText(a, in: image) ? max(end, a + min(Self.slack, section.end - a)) : end)
        case .followed, nil:
            if let symbol = image.objectAt[a], symbol.size > 0, symbol.size <= section.end - a { return a..<a + symbol.size }
            // What looks like the zeros behind a text may be the last fields of a structure that begins with one.
            return a..<(text(a, in: image)?.next ?? objectEnd(a, in: image))
        }
    }

    /// Where the object at `a` ends at the latest: behind it begins text, a jump table or a symbol.
    private func objectEnd(_ a: LinkAddress, in image: CodeImage) -> LinkAddress {
        let k = seamIndex(a)
        if k < seams.count, seams[k] == a { return objectEnds[k] }
        let next = next(after: a, in: image)
        return k < seams.count && seams[k] == next && !beginsObject(next, in: image) ? objectEnds[k] : next
    }

    private func beginsObject(_ a: LinkAddress, in image: CodeImage) -> Bool {
        tables[a] != nil || image.objectAt[a] != nil || textEnd(a, in: image) != nil
    }

    /// The ends of all objects, found from the last seam to the first.
    func findObjectEnds(_ image: CodeImage) -> [LinkAddress] {
        var ends = seams
        for k in seams.indices.reversed() {
            guard let section = image.file.section(at: seams[k]) else { continue }
            guard k + 1 < seams.count, seams[k + 1] < section.end else {
                ends[k] = section.end
                continue
            }
            ends[k] = beginsObject(seams[k + 1], in: image) ? seams[k + 1] : ends[k + 1]
        }
        return ends
    }

    /// Where rows of text end that begin at `a`, all as long as the first up to the next seam (`char names[12][4]`).
    private func rowsEnd(_ a: LinkAddress, in image: CodeImage) -> LinkAddress {
        let length = next(after: a, in: image) - a
        func isRow(_ row: LinkAddress) -> Bool {
            guard let bytes = image.file.read(row, length), let nul = bytes.firstIndex(of: 0), nul > bytes.startIndex else { return false }
            return bytes[..<nul].allSatisfy(Self.isText) && bytes[nul...].allSatisfy { $0 == 0 }
        }
        guard length > 1, length <= Self.rowMax else { return a }
        var end = a
        while isRow(end) { end = end + length }
        return end
    }

    /// The end, NUL included, of the text at `a`; nil when the bytes there are no text or may as well be numbers: behind a
    /// text begins what somebody takes the address of, at once or, if it is long, aligned.
    func textEnd(_ a: LinkAddress, in image: CodeImage) -> LinkAddress? { text(a, in: image)?.end }

    /// The same, and where the next object begins.
    private func text(_ a: LinkAddress, in image: CodeImage) -> (end: LinkAddress, next: LinkAddress)? {
        guard let section = image.file.section(at: a), !section.isWritable, !section.isExecutable,
            let bytes = image.file.read(a, section.end - a), let nul = bytes.firstIndex(of: 0)
        else { return nil }
        let length = nul - bytes.startIndex
        guard length > 0, bytes[..<nul].allSatisfy(Self.isText) else { return nil }
        let end = a + (length + 1)
        if end == section.end || isTaken(end, in: image) { return (end, end) }
        guard length >= Self.tellingText else { return nil }
        // Zeros up to the next object, which may begin with some itself: the alignment of long texts.
        for padding in 1...Self.paddingMax {
            guard nul + padding < bytes.endIndex, bytes[nul + padding] == 0 else { return nil }
            let next = end + padding
            if next == section.end || isTaken(next, in: image) { return (end, next) }
        }
        return nil
    }

    /// True when an object may begin at the address. What is only read or written there may be an element of an array.
    private func isTaken(_ a: LinkAddress, in image: CodeImage) -> Bool {
        if tables[a] != nil || image.objectAt[a] != nil { return true }
        var low = 0, high = taken.count
        while low < high {
            let middle = (low + high) / 2
            if taken[middle] < a { low = middle + 1 } else { high = middle }
        }
        return low < taken.count && taken[low] == a
    }

    /// True when the address lies behind the start of a text and before its NUL.
    private func isInsideText(_ a: LinkAddress, in image: CodeImage) -> Bool {
        let k = seamIndex(a) - 1
        guard k >= 0, let end = textEnd(seams[k], in: image) else { return false }
        return a < end + -1
    }

    /// True when the byte lies in a text, its padding included.
    func isInText(_ a: LinkAddress, in image: CodeImage) -> Bool {
        let k = isSeam(a) ? seamIndex(a) : seamIndex(a) - 1
        guard k >= 0, let end = textEnd(seams[k], in: image) else { return false }
        return a < end || image.file.read(end, a - end + 1)?.allSatisfy { $0 == 0 } ?? false
    }

    /// Index of the first seam at or behind `a`.
    private func seamIndex(_ a: LinkAddress) -> Int {
        var low = 0, high = seams.count
        while low < high {
            let middle = (low + high) / 2
            if seams[middle] < a { low = middle + 1 } else { high = middle }
        }
        return low
    }

    private func isSeam(_ a: LinkAddress) -> Bool {
        let k = seamIndex(a)
        return k < seams.count && seams[k] == a
    }

    private static func isText(_ b: UInt8) -> Bool { b >= 0x20 && b != 0x7f || b == 9 || b == 10 || b == 13 || b == 27 }
}
