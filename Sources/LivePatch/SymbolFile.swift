// An ELF file for debuggers: the names and the unwind data of patched code at its run addresses.

import ELF
import MachineCode

public struct SymbolFile: Sendable {
    /// One patch in a process.
    public struct Piece: Sendable {
        public var patch: LivePatch
        public var plan: ApplyPlan
        /// The unwind rules of the old code at a run address; nil where they are not known.
        public var oldRow: @Sendable (RuntimeAddress) -> FrameRow?

        public init(_ patch: LivePatch, _ plan: ApplyPlan, oldRow: @escaping @Sendable (RuntimeAddress) -> FrameRow?) {
            self.patch = patch
            self.plan = plan
            self.oldRow = oldRow
        }
    }

    /// By address.
    public private(set) var names: [PlacedName] = []
    /// ET_EXEC, linked where the code is: `add-symbol-file FILE` needs no address.
    public private(set) var bytes: [UInt8] = []

    public init(_ pieces: [Piece]) {
        var writer = ObjectWriter()
        var records = FrameRecords()
        for (i, piece) in pieces.enumerated() {
            let start = piece.plan.newCode.lowerBound
            let section = writer.section(i == 0 ? ".text" : ".text.\(i)", flags: 6, alignment: 1, at: start.value, piece.plan.text)
            for name in piece.patch.names(in: piece.plan) {
                _ = writer.symbol(name.name, .function, in: section, at: name.address.value, size: name.size, isGlobal: true)
                names.append(name)
            }
            if let table = piece.plan.frames { for frame in table.frames { records.add(frame, of: table) } }
            for entry in piece.patch.entries(in: piece.plan) { Self.add(entry, piece.oldRow, to: &records) }
        }
        // Addresses in the records are absolute, so that it does not matter where they are.
        _ = writer.section(".eh_frame", flags: 2, alignment: 8, records.bytes + [0, 0, 0, 0])
        bytes = writer.finish(placed: true)
        names.sort { ($0.address, $0.name) < ($1.address, $1.name) }
    }

    /// `/tmp/perf-PID.map`: one line for each name, in hexadecimal; marked, so that it can be told from a runtime's own.
    public var perfMap: String {
        names.map { "\(String($0.address.value, radix: 16)) \(String($0.size, radix: 16)) \($0.name)\(Self.perfMark)\n" }.joined()
    }
    static let perfMark = " [fother]"

    /// Whether all of a perf map is ours.
    public static func isPerfMap(_ text: [UInt8]) -> Bool {
        String(decoding: text, as: UTF8.self).split(separator: "\n").allSatisfy { $0.hasSuffix(perfMark) }
    }

    /// In a stub the frame is that of the old function at the same instruction.
    private static func add(_ entry: LivePatch.Entry, _ oldRow: (RuntimeAddress) -> FrameRow?, to records: inout FrameRecords) {
        guard
            let moved = MovedInstructions(
                entry.replacement.oldSiteBytes, covering: entry.replacement.jumpLength, from: entry.site,
                to: entry.stub + CommitStub.movedOffset)
        else { return }
        var rows: [(offset: Int, row: FrameRow)] = []
        guard let first = oldRow(entry.site) else { return }
        rows.append((0, first))
        for (old, new) in zip(moved.oldStarts + [moved.consumed], moved.newStarts + [moved.bytes.count]) where old > 0 {
            guard let row = oldRow(entry.site + old) else { return }
            rows.append((CommitStub.movedOffset + new, row))
        }
        records.add(rows, at: entry.stub, size: CommitStub.size)
    }
}

/// `.eh_frame` records that hold absolute addresses. Format: Linux Standard Base Core, "Exception Frames".
private struct FrameRecords {
    private(set) var bytes: [UInt8] = []

    /// A record of another table, with its instructions as they are.
    mutating func add(_ frame: FrameDescription, of table: UnwindTable) {
        let common = table.common[frame.common]
        add(
            start: frame.start.value, size: frame.size, codeAlignment: common.codeAlignment, dataAlignment: common.dataAlignment,
            isSignalFrame: common.isSignalFrame, common: Array(table.bytes.slice(common.instructions) ?? []),
            Array(table.bytes.slice(frame.instructions) ?? []))
    }

    /// A record made of the rules at some offsets. Nothing is added when a rule is of a kind that function entries do not have.
    mutating func add(_ rows: [(offset: Int, row: FrameRow)], at start: RuntimeAddress, size: Int) {
        var code: [UInt8] = [], at = 0, saved: Set<Int> = []
        for (offset, row) in rows {
            if offset > at {
                code += [0x02, UInt8(truncatingIfNeeded: offset - at)]  // DW_CFA_advance_loc1
                at = offset
            }
            guard case .register(let register, let distance) = row.address, distance >= 0 else { return }
            code += [0x0c] + uleb(UInt64(register)) + uleb(UInt64(distance))  // DW_CFA_def_cfa
            for (r, rule) in row.rules.enumerated() {
                switch rule {
                case .same: if saved.remove(r) != nil { code += [0x08, UInt8(r)] }  // DW_CFA_same_value
                case .saved(let place) where place <= 0 && place % 8 == 0:
                    code += [0x05, UInt8(r)] + uleb(UInt64(-place / 8))  // DW_CFA_offset_extended
                    saved.insert(r)
                default: return
                }
            }
        }
        add(start: start.value, size: size, codeAlignment: 1, dataAlignment: -8, isSignalFrame: false, common: [], code)
    }

    private mutating func add(
        start: UInt64, size: Int, codeAlignment: UInt64, dataAlignment: Int64, isSignalFrame: Bool, common: [UInt8], _ code: [UInt8]
    ) {
        let place = bytes.count
        var cie: [UInt8] = [0, 0, 0, 0, 1] + Array("zR".utf8) + (isSignalFrame ? Array("S".utf8) : []) + [0]
        cie += uleb(codeAlignment) + sleb(dataAlignment) + [16, 1, 0] + common  // the return address is column 16; pointers are absolute
        append(cie)
        var fde: [UInt8] = []
        fde.append32(UInt32(truncatingIfNeeded: bytes.count + 4 - place))
        fde.append64(start)
        fde.append64(UInt64(size))
        append(fde + [0] + code)
    }

    private mutating func append(_ record: [UInt8]) {
        let padding = (8 - (record.count + 4) % 8) % 8
        bytes.append32(UInt32(truncatingIfNeeded: record.count + padding))
        bytes += record + [UInt8](repeating: 0, count: padding)
    }

    private func uleb(_ value: UInt64) -> [UInt8] {
        var rest = value, out: [UInt8] = []
        repeat {
            out.append(UInt8(rest & 0x7f) | (rest > 0x7f ? 0x80 : 0))
            rest >>= 7
        } while rest != 0
        return out
    }

    private func sleb(_ value: Int64) -> [UInt8] {
        var rest = value, out: [UInt8] = []
        while true {
            let low = UInt8(truncatingIfNeeded: rest) & 0x7f
            rest >>= 7
            let isLast = rest == 0 && low & 0x40 == 0 || rest == -1 && low & 0x40 != 0
            out.append(low | (isLast ? 0 : 0x80))
            if isLast { return out }
        }
    }
}
