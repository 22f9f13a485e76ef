// Lines up two instruction sequences, as diff lines up lines.

import MachineCode

/// What an instruction does, without the addresses and constants in it: the unit of alignment and of similarity.
func shape(_ i: Instruction) -> UInt64 {
    var h: UInt64 = 0xcbf2_9ce4_8422_2325
    func mix(_ v: UInt64) { h = (h ^ v) &* 0x0000_0100_0000_01b3 }
    mix(UInt64(i.mnemonic))
    mix(UInt64(i.destination?.number ?? 0xff) | UInt64(i.source?.number ?? 0xff) << 8)
    mix(UInt64(i.memory?.base?.number ?? 0xff) | UInt64(i.memory?.index?.number ?? 0xff) << 8 | UInt64(i.memory?.scale ?? 0) << 16)
    mix((i.branch != nil ? 1 : 0) | (i.ripRelative != nil ? 2 : 0) | (i.immediate != nil ? 4 : 0) | (i.memory != nil ? 8 : 0))
    mix(UInt64(i.accessBytes))
    return h
}

/// The same, whatever registers it uses.
func operation(_ i: Instruction) -> UInt64 {
    let parts = (i.branch != nil ? 1 : 0) | (i.ripRelative != nil ? 2 : 0) | (i.immediate != nil ? 4 : 0) | (i.memory != nil ? 8 : 0)
    return UInt64(i.mnemonic) | UInt64(truncatingIfNeeded: i.accessBytes) << 16 | UInt64(parts) << 48 | (i.writesMemory ? 1 << 60 : 0)
}

enum Alignment {
    /// Longer middle parts are not aligned: their instructions count as changed.
    static let cellsMax = 16_000_000

    /// Longest common subsequence of two sequences as index pairs, common ends first.
    static func pairs<T: Equatable>(_ a: [T], _ b: [T]) -> [(Int, Int)] {
        var head = 0
        while head < a.count, head < b.count, a[head] == b[head] { head += 1 }
        var tail = 0
        while tail < a.count - head, tail < b.count - head, a[a.count - 1 - tail] == b[b.count - 1 - tail] { tail += 1 }
        var result = (0..<head).map { ($0, $0) }
        let n = a.count - head - tail, m = b.count - head - tail
        if n > 0, m > 0, n * m <= cellsMax {
            // Row i, column j: length of the best alignment of a[i...] and b[j...].
            var table = [Int32](repeating: 0, count: (n + 1) * (m + 1))
            let width = m + 1
            for i in stride(from: n - 1, through: 0, by: -1) {
                for j in stride(from: m - 1, through: 0, by: -1) {
                    table[i * width + j] =
                        a[head + i] == b[head + j]
                        ? table[(i + 1) * width + j + 1] + 1 : max(table[(i + 1) * width + j], table[i * width + j + 1])
                }
            }
            var i = 0, j = 0
            while i < n, j < m {
                if a[head + i] == b[head + j] {
                    result.append((head + i, head + j))
                    i += 1
                    j += 1
                } else if table[(i + 1) * width + j] >= table[i * width + j + 1] {
                    i += 1
                } else {
                    j += 1
                }
            }
        }
        for k in stride(from: tail, to: 0, by: -1) { result.append((a.count - k, b.count - k)) }
        return result
    }

    /// Indices of a longest strictly increasing subsequence.
    static func increasing(_ values: [Int]) -> [Int] {
        var tails: [Int] = [], previous = [Int](repeating: -1, count: values.count)
        for i in values.indices {
            var low = 0, high = tails.count
            while low < high {
                let middle = (low + high) / 2
                if values[tails[middle]] < values[i] { low = middle + 1 } else { high = middle }
            }
            if low > 0 { previous[i] = tails[low - 1] }
            if low == tails.count { tails.append(i) } else { tails[low] = i }
        }
        var result: [Int] = [], at = tails.last ?? -1
        while at >= 0 {
            result.append(at)
            at = previous[at]
        }
        return result.reversed()
    }
}

/// How alike two functions are: the Dice coefficient of their pairs of successive operations.
struct CodeProfile: Sendable {
    private var grams: [UInt32]

    init(_ f: CodeFunction) {
        var grams: [UInt32] = []
        grams.reserveCapacity(f.instructions.count)
        var last: UInt32 = 0
        for i in f.instructions where !i.isPadding {
            grams.append(last << 16 | UInt32(i.mnemonic))
            last = UInt32(i.mnemonic)
        }
        self.grams = grams.sorted()
    }

    /// 0 (nothing in common) to 1.
    func similarity(_ other: CodeProfile) -> Double {
        var i = 0, j = 0, common = 0
        while i < grams.count, j < other.grams.count {
            if grams[i] == other.grams[j] {
                common += 1
                i += 1
                j += 1
            } else if grams[i] < other.grams[j] {
                i += 1
            } else {
                j += 1
            }
        }
        let total = grams.count + other.grams.count
        return total == 0 ? 1 : 2 * Double(common) / Double(total)
    }
}
