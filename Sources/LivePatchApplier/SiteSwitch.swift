// Writes every patch site of one process, or none, while it stands still.

import ELF
import LivePatch
import ProcessControl

struct SiteSwitch {
    let plan: ApplyPlan
    /// Old bytes to jumps; false: back.
    let forward: Bool
    /// Bytes of a finished call stub, cleared on the way.
    let stub: Range<RuntimeAddress>?
    let memory: ProcessMemory
    let checkpoint: @Sendable (TransitionStep) -> Void

    private var phaseAddress: RuntimeAddress { plan.base + TargetHeader.phaseOffset }

    /// Checks what is there, marks the header, writes each site in one write, reads back, marks the header again.
    /// On any failure what was written is put back before it is thrown: `site-altered`, `read-back`, or the memory's.
    func perform() throws {
        var before: [[UInt8]] = []
        for site in plan.sites {
            let bytes = try memory.read(at: site.address, count: site.old.count)
            guard bytes == site.old || !forward && bytes == site.new else {
                throw Failure(
                    "site-altered", "the code at the patch site is neither the old build's nor the patch's.",
                    at: "process \(memory.process) \(site.function)", remedy: "A debugger or another tool has written there; nothing was changed.")
            }
            before.append(bytes)
        }
        checkpoint(.stopped)
        if let stub { try memory.write([UInt8](repeating: 0, count: stub.upperBound - stub.lowerBound), at: stub.lowerBound) }
        let phase = try memory.read(at: phaseAddress, count: 4)
        do {
            try mark(forward ? .applying : .reverting)
            checkpoint(.headerWritten)
            for (i, site) in plan.sites.enumerated() {
                try memory.write(forward ? site.new : site.old, at: site.address)
                checkpoint(.siteWritten(i))
            }
            for site in plan.sites {
                guard try memory.read(at: site.address, count: site.new.count) == (forward ? site.new : site.old) else {
                    throw Failure("read-back", "a patch site does not read back as written.", at: "process \(memory.process) \(site.function)")
                }
            }
            try mark(forward ? .patched : .retired)
            checkpoint(.phaseWritten)
        } catch {
            for (site, bytes) in zip(plan.sites, before) { try? memory.write(bytes, at: site.address) }
            try? memory.write(phase, at: phaseAddress)
            throw error
        }
    }

    private func mark(_ phase: TargetHeader.Phase) throws {
        try memory.write((0..<4).map { UInt8(truncatingIfNeeded: phase.rawValue >> UInt32(8 * $0)) }, at: phaseAddress)
    }
}
