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
    private let places: [(address: RuntimeAddress, count: Int)]
    /// By write: the others that write some of the same bytes, as where one patch makes way for another.
    private let overlaps: [[Int]]
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
        places = writes.map { (address: $0.address, count: $0.bytes.count) }
        overlaps = Self.overlaps(places)
        self.memory = memory
        self.checkpoint = checkpoint
    }

    /// Writes in order, and reads everything back. On a failure what was written is put back in reverse, and the failure thrown:
    /// `site-altered`, `read-back`, or the memory's.
    func perform() throws {
        checkpoint(.stopped)
        // All there was to prepare is prepared: every thread of the process waits.
        var now = try memory.read(places)
        var done: [(RuntimeAddress, [UInt8])] = []
        do {
            for i in writes.indices {
                let w = writes[i], before = now[i]
                guard w.expected.contains(before) else {
                    throw Failure(
                        "site-altered", "the code at the patch site is neither the old build's nor the patch's.",
                        at: "process \(memory.process) \(w.function)",
                        remedy: "A debugger or another tool has written there; nothing was changed.")
                }
                guard before != w.bytes else { continue }
                try memory.write(w.bytes, at: w.address)
                done.append((w.address, before))
                now[i] = w.bytes
                for other in overlaps[i] { put(w.bytes, at: w.address, into: &now[other], at: places[other].address) }
                if let step = w.step { checkpoint(step) }
            }
            let after = try memory.read(places)
            for i in writes.indices where after[i] != now[i] {
                throw Failure(
                    "read-back", "a patch site does not read back as written.", at: "process \(memory.process) \(writes[i].function)")
            }
        } catch {
            for (address, bytes) in done.reversed() { try? memory.write(bytes, at: address) }
            throw error
        }
    }

    private static func overlaps(_ places: [(address: RuntimeAddress, count: Int)]) -> [[Int]] {
        var result = [[Int]](repeating: [], count: places.count)
        let order = places.indices.sorted { places[$0].address < places[$1].address }
        for (n, i) in order.enumerated() {
            for k in order[(n + 1)...].prefix(while: { places[$0].address < places[i].address + places[i].count }) {
                result[i].append(k)
                result[k].append(i)
            }
        }
        return result
    }

    /// Those of `bytes` at `address` that lie in `place`, which begins at `start`.
    private func put(_ bytes: [UInt8], at address: RuntimeAddress, into place: inout [UInt8], at start: RuntimeAddress) {
        for (k, byte) in bytes.enumerated() {
            let at = address + k
            if at >= start, at < start + place.count { place[at - start] = byte }
        }
    }
}
