// Turns patches off and on in one process while it stands still: all of it happens, or nothing.

import ELF
import LivePatch
import ProcessControl

struct SiteSwitch {
    /// One write: what must be there before, what is there after.
    private struct Write {
        var address: RuntimeAddress
        var expected: [[UInt8]]
        var bytes: [UInt8]
        var step: TransitionStep?
        var function: String
    }

    private let writes: [Write]
    private let memory: ProcessMemory
    private let checkpoint: @Sendable (TransitionStep) -> Void

    /// Off: the commit byte first, then the sites. On: the sites first, each with a jump to a stub that still runs the old
    /// code, then the byte. So a kill between any two writes leaves the old code or one patch, never a mixture.
    /// `isEffective`: no thread is in old code at this moment, and that is written down with the commit.
    init(
        off: [ApplyPlan], on: ApplyPlan?, isEffective: Bool, memory: ProcessMemory, checkpoint: @escaping @Sendable (TransitionStep) -> Void
    ) {
        var writes: [Write] = []
        func set(_ byte: RuntimeAddress, _ value: UInt8, _ step: TransitionStep?) {
            writes.append(Write(address: byte, expected: [[0], [1]], bytes: [value], step: step, function: "patch header"))
        }
        for plan in off {
            set(plan.commit, 0, .committed)
            for (i, s) in plan.sites.enumerated().reversed() {
                writes.append(
                    Write(address: s.address, expected: [s.new] + s.vacant, bytes: s.old, step: .siteWritten(i), function: s.function))
            }
        }
        if let plan = on {
            for (i, s) in plan.sites.enumerated() {
                let expected = s.isEntry ? s.vacant : s.vacant + [s.new]
                writes.append(Write(address: s.address, expected: expected, bytes: s.new, step: .siteWritten(i), function: s.function))
            }
            set(plan.effective, isEffective ? 1 : 0, nil)
            set(plan.commit, 1, .committed)
        }
        self.writes = writes
        self.memory = memory
        self.checkpoint = checkpoint
    }

    /// Writes in order, each read back. On a failure what was written is put back in reverse, and the failure thrown:
    /// `site-altered`, `read-back`, or the memory's.
    func perform() throws {
        checkpoint(.stopped)
        var done: [(RuntimeAddress, [UInt8])] = []
        do {
            for w in writes {
                let before = try memory.read(at: w.address, count: w.bytes.count)
                guard w.expected.contains(before) else {
                    throw Failure(
                        "site-altered", "the code at the patch site is neither the old build's nor the patch's.",
                        at: "process \(memory.process) \(w.function)",
                        remedy: "A debugger or another tool has written there; nothing was changed.")
                }
                guard before != w.bytes else { continue }
                try memory.write(w.bytes, at: w.address)
                done.append((w.address, before))
                if let step = w.step { checkpoint(step) }
                guard try memory.read(at: w.address, count: w.bytes.count) == w.bytes else {
                    throw Failure("read-back", "a patch site does not read back as written.", at: "process \(memory.process) \(w.function)")
                }
            }
        } catch {
            for (address, bytes) in done.reversed() { try? memory.write(bytes, at: address) }
            throw error
        }
    }
}
