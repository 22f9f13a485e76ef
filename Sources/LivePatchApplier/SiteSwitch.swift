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

    /// Off: the commit bytes first, then the sites. On: the sites first, each with a jump to a stub that still runs the old
    /// code, then the byte. So a kill between any two writes leaves the old code or one patch, never a mixture.
    /// That old calls may still be under way is written down before the commit.
    init(off: [ApplyPlan], on: [ApplyPlan], memory: ProcessMemory, checkpoint: @escaping @Sendable (TransitionStep) -> Void) {
        var writes: [Write] = []
        func set(_ byte: RuntimeAddress, _ value: UInt8, _ step: TransitionStep?) {
            writes.append(Write(address: byte, expected: [[0], [1]], bytes: [value], step: step, function: "patch header"))
        }
        for plan in off { set(plan.commit, 0, .committed) }
        for plan in off {
            for (i, s) in plan.sites.enumerated().reversed() {
                writes.append(
                    Write(address: s.address, expected: [s.new] + s.vacant, bytes: s.old, step: .siteWritten(i), function: s.function))
            }
        }
        for plan in on {
            for (i, s) in plan.sites.enumerated() {
                let expected = s.isEntry ? s.vacant : s.vacant + [s.new]
                writes.append(Write(address: s.address, expected: expected, bytes: s.new, step: .siteWritten(i), function: s.function))
            }
            set(plan.effective, 0, nil)
        }
        for plan in on { set(plan.commit, 1, .committed) }
        self.writes = writes
        self.memory = memory
        self.checkpoint = checkpoint
    }

    /// Writes in order, and reads everything back. On a failure what was written is put back in reverse, and the failure thrown:
    /// `site-altered`, `read-back`, or the memory's.
    func perform() throws {
        checkpoint(.stopped)
        let places = writes.map { (address: $0.address, count: $0.bytes.count) }
        // Where one patch makes way for another the same bytes are written twice: what is there at each write follows from the others.
        var now: [RuntimeAddress: UInt8] = [:]
        for (place, bytes) in zip(places, try memory.read(places)) {
            for k in 0..<place.count { now[place.address + k] = bytes[k] }
        }
        func bytes(at place: (address: RuntimeAddress, count: Int)) -> [UInt8] { (0..<place.count).map { now[place.address + $0] ?? 0 } }
        var done: [(RuntimeAddress, [UInt8])] = []
        do {
            for (w, place) in zip(writes, places) {
                let before = bytes(at: place)
                guard w.expected.contains(before) else {
                    throw Failure(
                        "site-altered", "the code at the patch site is neither the old build's nor the patch's.",
                        at: "process \(memory.process) \(w.function)",
                        remedy: "A debugger or another tool has written there; nothing was changed.")
                }
                guard before != w.bytes else { continue }
                try memory.write(w.bytes, at: w.address)
                done.append((w.address, before))
                for (k, byte) in w.bytes.enumerated() { now[w.address + k] = byte }
                if let step = w.step { checkpoint(step) }
            }
            for ((w, place), found) in zip(zip(writes, places), try memory.read(places)) where found != bytes(at: place) {
                throw Failure("read-back", "a patch site does not read back as written.", at: "process \(memory.process) \(w.function)")
            }
        } catch {
            for (address, bytes) in done.reversed() { try? memory.write(bytes, at: address) }
            throw error
        }
    }
}
