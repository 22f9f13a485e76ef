// Walks a stopped thread's stack frame by frame with the unwind data of the loaded objects, to tell a return address from
// an old word that only looks like one. Prepared while the target runs; used only on threads that seem to block.

import ELF
import LivePatch
import ProcessControl
import Synchronization

/// Unwind tables by build ID: they hold link addresses, so that one serves every instance.
public final class UnwindTables: Sendable {
    /// Larger tables are not read: their objects' frames count as unknown.
    static let bytesMax = 64 << 20
    static let ehFrame: UInt32 = 0x6474_e550

    private let known = Mutex<[BuildID: UnwindTable?]>([:])

    public init() {}

    /// The table of a loaded object, read from its memory; nil when it has none that can be read.
    func table(of object: LoadedObject, in memory: ProcessMemory) -> UnwindTable? {
        guard let id = object.buildID else { return Self.read(object, memory) }
        if let answer = known.withLock({ $0[id] }) { return answer }
        let answer = Self.read(object, memory)
        known.withLock { $0[id] = .some(answer) }
        return answer
    }

    private static func read(_ object: LoadedObject, _ memory: ProcessMemory) -> UnwindTable? {
        guard let header = object.segments.first(where: { $0.type == ehFrame }), header.memorySize >= 8,
            let head = try? memory.read(at: object.bias.runtime(header.address), count: 8), head[0] == 1,
            // pcrel | sdata4: what every linker on x86-64 writes.
            head[1] == 0x1b
        else { return nil }
        let distance = Int(Int32(bitPattern: Bytes(head, name: "eh_frame_hdr").u32(4) ?? 0))
        let start = header.address + 4 + distance
        guard let segment = object.segments.first(where: { $0.type == Segment.load && $0.contains(start) }) else { return nil }
        let size = min(segment.fileSize - (start - segment.address), bytesMax)
        guard size > 0, let bytes = try? memory.read(at: object.bias.runtime(start), count: size) else { return nil }
        return try? UnwindTable(Bytes(bytes, name: object.path), 0..<size, at: start)
    }
}

struct StackWalker {
    static let framesMax = 1024

    private struct Home {
        var range: Range<RuntimeAddress>
        var bias: LoadBias
        var table: UnwindTable
    }
    private let homes: [Home]

    /// Reads what is not known yet; the target runs meanwhile.
    init(_ objects: [LoadedObject], _ memory: ProcessMemory, _ tables: UnwindTables, _ plans: [ApplyPlan]) {
        // Patched code has no object; its unwind data is read from the patch, with run addresses in it.
        homes =
            objects.compactMap { o in tables.table(of: o, in: memory).map { Home(range: o.extent, bias: o.bias, table: $0) } }
            + plans.compactMap { plan in plan.frames.map { Home(range: plan.newCode, bias: LoadBias(0), table: $0) } }
    }

    /// Of a process with the patches that are in it, and with `plan` that comes or goes.
    init(_ target: Target, _ tables: UnwindTables, _ plan: ApplyPlan? = nil) {
        let found = ([target.found].compactMap { $0 } + target.others).compactMap(\.plan)
        self.init(target.objects, target.memory, tables, (plan.map { [$0] } ?? []) + found)
    }

    /// Where a walk ended.
    struct Walk {
        /// Return addresses, innermost first.
        var returns: [UInt64] = []
        /// Instruction pointers that signal handlers interrupted.
        var interrupted: [UInt64] = []
        /// Nil when the outermost frame was reached; else the stack from here on is not understood.
        var unknownFrom: UInt64?
    }

    /// `words` holds the live part of the thread's stack.
    func walk(_ thread: StoppedThread, _ words: WordReader) -> Walk {
        var walk = Walk()
        var registers = thread.dwarfRegisters
        // The innermost frame and one that a signal interrupted stand on an instruction, the others behind a call.
        var isExact = true
        for _ in 0..<Self.framesMax {
            let sp = registers[7], pc = registers[16]
            func lost() -> Walk {
                walk.unknownFrom = sp
                return walk
            }
            let address = RuntimeAddress(isExact ? pc : pc &- 1)
            guard let home = homes.first(where: { $0.range.contains(address) }), let row = home.table.row(at: home.bias.link(address))
            else { return lost() }
            let cfa: UInt64
            switch row.address {
            case .register(let r, let offset): cfa = registers[r] &+ UInt64(bitPattern: Int64(offset))
            case .expression(let range):
                guard let value = evaluate(home.table.bytes, range, start: nil, registers: registers, read: words.word) else {
                    return lost()
                }
                cfa = value
            }
            guard row.isSignalFrame || cfa > sp else { return lost() }
            var caller = registers
            caller[7] = cfa
            for (r, rule) in row.rules.enumerated() {
                func at(_ address: UInt64?) -> Bool {
                    guard let address, let value = words.word(at: address) else { return false }
                    caller[r] = value
                    return true
                }
                var isKnown = true
                switch rule {
                case .same: isKnown = r != 16
                case .undefined:
                    if r == 16 { return walk }
                case .saved(let offset): isKnown = at(cfa &+ UInt64(bitPattern: Int64(offset)))
                case .value(let offset): caller[r] = cfa &+ UInt64(bitPattern: Int64(offset))
                case .register(let other): caller[r] = registers[other]
                case .savedAt(let range):
                    isKnown = at(evaluate(home.table.bytes, range, start: cfa, registers: registers, read: words.word))
                case .expression(let range):
                    guard let value = evaluate(home.table.bytes, range, start: cfa, registers: registers, read: words.word) else {
                        return lost()
                    }
                    caller[r] = value
                }
                guard isKnown else { return lost() }
            }
            registers = caller
            if registers[16] == 0 { return walk }
            isExact = row.isSignalFrame
            if isExact { walk.interrupted.append(registers[16]) } else { walk.returns.append(registers[16]) }
        }
        walk.unknownFrom = registers[7]
        return walk
    }
}
