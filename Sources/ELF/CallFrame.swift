// Where a function's caller is, at one instruction: the call frame instructions of `.eh_frame`, carried out.
// Source: DWARF 5, section 6.4; x86-64 psABI, figure 3.36 (register numbers).

/// How to find the caller's value of a register.
public enum FrameRule: Sendable, Equatable {
    /// Unchanged by this function.
    case same
    /// There is no caller.
    case undefined
    /// Saved at the frame address plus this.
    case saved(Int)
    /// The frame address plus this.
    case value(Int)
    /// Saved where the expression (a range of the table's bytes) says.
    case savedAt(Range<Int>)
    /// What the expression says.
    case expression(Range<Int>)
    /// In another register.
    case register(Int)
}

/// The rules at one instruction.
public struct FrameRow: Sendable, Equatable {
    /// Where the canonical frame address comes from: register plus offset, or an expression.
    public enum Address: Sendable, Equatable {
        case register(Int, offset: Int)
        case expression(Range<Int>)
    }
    public var address: Address
    /// By DWARF register number, 0 to 16; 16 is the return address.
    public var rules: [FrameRule]
    public var isSignalFrame: Bool
}

extension UnwindTable {
    public static let columns = 17
    /// Longer instruction sequences than any compiler writes.
    static let instructionsMax = 100_000
    static let statesMax = 64

    /// The frame that holds `pc`, by binary search.
    public func frame(at pc: LinkAddress) -> FrameDescription? {
        var low = 0, high = frames.count
        while low < high {
            let middle = (low + high) / 2
            if frames[middle].start <= pc { low = middle + 1 } else { high = middle }
        }
        guard low > 0 else { return nil }
        let f = frames[low - 1]
        return pc.value - f.start.value < UInt64(f.size) ? f : nil
    }

    /// The rules at `pc`; nil when no frame covers it or its instructions are not understood.
    public func row(at pc: LinkAddress) -> FrameRow? {
        guard let frame = frame(at: pc) else { return nil }
        let common = common[frame.common]
        guard common.returnColumn == 16 else { return nil }
        var machine = FrameMachine(common: common, pc: frame.start)
        guard machine.run(bytes, common.instructions, until: nil) else { return nil }
        machine.initial = machine.rules
        guard machine.run(bytes, frame.instructions, until: pc), let address = machine.address else { return nil }
        return FrameRow(address: address, rules: machine.rules, isSignalFrame: common.isSignalFrame)
    }
}

/// Carries out call frame instructions up to one address. Anything unknown ends it with false: no rules, no guess.
private struct FrameMachine {
    let common: CommonInformation
    var pc: LinkAddress
    var address: FrameRow.Address?
    var rules = [FrameRule](repeating: .same, count: UnwindTable.columns)
    var initial: [FrameRule] = []
    private var states: [(FrameRow.Address?, [FrameRule])] = []

    init(common: CommonInformation, pc: LinkAddress) {
        self.common = common
        self.pc = pc
    }

    mutating func run(_ bytes: Bytes, _ range: Range<Int>, until end: LinkAddress?) -> Bool {
        var cursor = ByteCursor(bytes, range, part: ".eh_frame")
        do {
            for _ in 0..<UnwindTable.instructionsMax {
                if cursor.isAtEnd { return true }
                if let end, pc > end { return true }
                // An advance beyond `end` must not apply what follows it: rules hold from their address on.
                guard try step(&cursor, end) else { return isPast }
            }
        } catch { return false }
        return false
    }

    private var isPast = false

    private mutating func advance(_ by: UInt64, _ end: LinkAddress?) -> Bool {
        let (distance, overflow) = by.multipliedReportingOverflow(by: common.codeAlignment)
        guard !overflow, let n = Int(exactly: distance) else { return false }
        if let end, pc + n > end {
            isPast = true
            return false
        }
        pc = pc + n
        return true
    }

    private func factored(_ n: Int64) -> Int? {
        let (value, overflow) = n.multipliedReportingOverflow(by: common.dataAlignment)
        return overflow ? nil : Int(value)
    }

    private mutating func set(_ register: UInt64, _ rule: FrameRule?) -> Bool {
        guard let rule else { return false }
        // Columns beyond the general registers (vector registers) do not matter here.
        if register < UInt64(rules.count) { rules[Int(register)] = rule }
        return true
    }

    private mutating func block(_ cursor: inout ByteCursor) throws(Failure) -> Range<Int>? {
        let length = try cursor.uleb()
        guard length < 4096 else { return nil }
        let start = cursor.offset
        try cursor.skip(Int(length))
        return start..<cursor.offset
    }

    /// False when nothing more may be applied: past the end, or not understood.
    private mutating func step(_ cursor: inout ByteCursor, _ end: LinkAddress?) throws(Failure) -> Bool {
        let op = try cursor.u8()
        let low = UInt64(op & 0x3f)
        switch op & 0xc0 {
        case 0x40: return advance(low, end)
        case 0x80: return set(low, factored(Int64(clamping: try cursor.uleb())).map { .saved($0) })
        case 0xc0: return set(low, low < UInt64(initial.count) ? initial[Int(low)] : .same)
        default: break
        }
        switch op {
        case 0x00: return true
        case 0x02: return advance(UInt64(try cursor.u8()), end)
        case 0x03: return advance(UInt64(try cursor.u16()), end)
        case 0x04: return advance(UInt64(try cursor.u32()), end)
        case 0x05: return set(try cursor.uleb(), factored(Int64(clamping: try cursor.uleb())).map { .saved($0) })
        case 0x06:
            let r = try cursor.uleb()
            return set(r, r < UInt64(initial.count) ? initial[Int(r)] : .same)
        case 0x07: return set(try cursor.uleb(), .undefined)
        case 0x08: return set(try cursor.uleb(), .same)
        case 0x09:
            let r = try cursor.uleb(), other = try cursor.uleb()
            return set(r, other < UInt64(rules.count) ? .register(Int(other)) : nil)
        case 0x0a:
            guard states.count < UnwindTable.statesMax else { return false }
            states.append((address, rules))
            return true
        case 0x0b:
            guard let state = states.popLast() else { return false }
            (address, rules) = state
            return true
        case 0x0c: return define(register: try cursor.uleb(), offset: Int(exactly: try cursor.uleb()))
        case 0x0d:
            guard case .register(_, let offset) = address else { return false }
            return define(register: try cursor.uleb(), offset: offset)
        case 0x0e:
            guard case .register(let register, _) = address else { return false }
            return define(register: UInt64(register), offset: Int(exactly: try cursor.uleb()))
        case 0x0f:
            guard let block = try block(&cursor) else { return false }
            address = .expression(block)
            return true
        case 0x10:
            let r = try cursor.uleb()
            return set(r, try block(&cursor).map { .savedAt($0) })
        case 0x11: return set(try cursor.uleb(), factored(try cursor.sleb()).map { .saved($0) })
        case 0x12: return define(register: try cursor.uleb(), offset: factored(try cursor.sleb()))
        case 0x13:
            guard case .register(let register, _) = address else { return false }
            return define(register: UInt64(register), offset: factored(try cursor.sleb()))
        case 0x14: return set(try cursor.uleb(), factored(Int64(clamping: try cursor.uleb())).map { .value($0) })
        case 0x15: return set(try cursor.uleb(), factored(try cursor.sleb()).map { .value($0) })
        case 0x16:
            let r = try cursor.uleb()
            return set(r, try block(&cursor).map { .expression($0) })
        case 0x2e:
            _ = try cursor.uleb()
            return true
        default: return false
        }
    }

    private mutating func define(register: UInt64, offset: Int?) -> Bool {
        guard register < UInt64(UnwindTable.columns), let offset else { return false }
        address = .register(Int(register), offset: offset)
        return true
    }
}

/// The value of a DWARF expression over registers and memory; nil when it is not understood.
public func evaluate(
    _ bytes: Bytes, _ range: Range<Int>, start: UInt64?, registers: [UInt64], read: (UInt64) -> UInt64?
) -> UInt64? {
    var stack: [UInt64] = start.map { [$0] } ?? []
    var cursor = ByteCursor(bytes, range, part: "expression")
    func binary(_ operation: (UInt64, UInt64) -> UInt64) -> Bool {
        guard stack.count >= 2 else { return false }
        let b = stack.removeLast(), a = stack.removeLast()
        stack.append(operation(a, b))
        return true
    }
    do {
        for _ in 0..<256 where !cursor.isAtEnd {
            guard stack.count < 64 else { return nil }
            let op = try cursor.u8()
            var isFine = true
            switch op {
            case 0x30...0x4f: stack.append(UInt64(op - 0x30))
            case 0x70...0x80:
                let offset = try cursor.sleb()
                guard Int(op - 0x70) < registers.count else { return nil }
                stack.append(registers[Int(op - 0x70)] &+ UInt64(bitPattern: offset))
            case 0x06:
                guard let a = stack.popLast(), let value = read(a) else { return nil }
                stack.append(value)
            case 0x08: stack.append(UInt64(try cursor.u8()))
            case 0x09: stack.append(UInt64(bitPattern: Int64(Int8(bitPattern: try cursor.u8()))))
            case 0x0a: stack.append(UInt64(try cursor.u16()))
            case 0x0c: stack.append(UInt64(try cursor.u32()))
            case 0x10: stack.append(try cursor.uleb())
            case 0x11: stack.append(UInt64(bitPattern: try cursor.sleb()))
            case 0x12:
                guard let top = stack.last else { return nil }
                stack.append(top)
            case 0x1a: isFine = binary { $0 & $1 }
            case 0x1c: isFine = binary { $0 &- $1 }
            case 0x1e: isFine = binary { $0 &* $1 }
            case 0x21: isFine = binary { $0 | $1 }
            case 0x22: isFine = binary { $0 &+ $1 }
            case 0x23:
                let n = try cursor.uleb()
                guard let a = stack.popLast() else { return nil }
                stack.append(a &+ n)
            case 0x24: isFine = binary { $1 < 64 ? $0 << $1 : 0 }
            case 0x29: isFine = binary { $0 == $1 ? 1 : 0 }
            case 0x2a: isFine = binary { Int64(bitPattern: $0) >= Int64(bitPattern: $1) ? 1 : 0 }
            case 0x2e: isFine = binary { $0 != $1 ? 1 : 0 }
            default: return nil
            }
            guard isFine else { return nil }
        }
    } catch { return nil }
    return cursor.isAtEnd ? stack.last : nil
}
