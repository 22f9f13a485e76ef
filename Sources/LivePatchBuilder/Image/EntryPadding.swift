// The padding in front of functions, where a jump may be put that is too long for the function's first instruction.

import ELF
import MachineCode

struct EntryPadding {
    private var rooms: [Int: [UInt8]] = [:]

    /// Looks before the functions with these indices. Padding counts only if nothing runs into it and nothing refers to it: no
    /// instruction, no pointer in data, no symbol.
    init(_ image: CodeImage, before functions: [Int]) {
        var candidates: [(range: Range<LinkAddress>, function: Int)] = []
        for f in Set(functions).sorted() where f > 0 {
            let previous = image.functions[f - 1], start = image.functions[f].start
            guard previous.frame != nil, previous.undecodedAt == nil, previous.roomAfter > 0, previous.end + previous.roomAfter == start,
                !image.fallsThrough(previous.index)
            else { continue }
            candidates.append((previous.end..<start, f))
        }
        var referred: Set<Int> = []
        func note(_ a: LinkAddress) {
            var low = 0, high = candidates.count
            while low < high {
                let middle = (low + high) / 2
                if candidates[middle].range.upperBound <= a { low = middle + 1 } else { high = middle }
            }
            if low < candidates.count, candidates[low].range.contains(a) { referred.insert(low) }
        }
        // Code that is not understood may go anywhere.
        guard !candidates.isEmpty, image.functions.allSatisfy({ $0.undecodedAt == nil }) else { return }
        for f in image.functions { for r in f.references { note(r.target) } }
        for r in image.file.relocations { if let target = image.target(of: r) { note(target) } }
        for s in image.file.symbols + image.file.dynamicSymbols where s.isDefined { note(s.value) }
        for (i, c) in candidates.enumerated() where !referred.contains(i) {
            rooms[c.function] = image.file.read(c.range.lowerBound, c.range.upperBound - c.range.lowerBound).map(Array.init)
        }
    }

    /// Bytes right before the function; empty where there are none to be had.
    func room(before function: Int) -> [UInt8] { rooms[function] ?? [] }
}
