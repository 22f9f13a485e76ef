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

    /// Forward: each site gets a jump to a stub that still runs the old code, then one byte turns all of them. Back: the
    /// byte first, then the sites. So a kill between any two writes leaves the old code or the new, never a mixture.
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
        let committed = try memory.read(at: plan.commit, count: 1)
        checkpoint(.stopped)
        if let stub { try memory.write([UInt8](repeating: 0, count: stub.upperBound - stub.lowerBound), at: stub.lowerBound) }
        do {
            if !forward { try commit(0) }
            for (i, site) in plan.sites.enumerated() {
                try memory.write(forward ? site.new : site.old, at: site.address)
                checkpoint(.siteWritten(i))
            }
            for site in plan.sites {
                guard try memory.read(at: site.address, count: site.new.count) == (forward ? site.new : site.old) else {
                    throw Failure("read-back", "a patch site does not read back as written.", at: "process \(memory.process) \(site.function)")
                }
            }
            if forward { try commit(1) }
        } catch {
            if forward { try? memory.write(committed, at: plan.commit) }
            for (site, bytes) in zip(plan.sites, before) { try? memory.write(bytes, at: site.address) }
            if !forward { try? memory.write(committed, at: plan.commit) }
            throw error
        }
    }

    private func commit(_ value: UInt8) throws {
        try memory.write([value], at: plan.commit)
        checkpoint(.committed)
    }
}
