// Takes the memory of a reverted patch out of a process, if nothing in the process can point there any more.

import ELF
import LivePatch
import ProcessControl

extension Applier {
    /// More memory than this is not searched: the process would stand still for too long.
    static let searchMaxBytes: UInt64 = 1 << 30

    /// Searches while the process runs, to find most pointers without a pause; then again with every thread stopped, and
    /// unmaps in the same stop. Whatever is in doubt leaves the memory where it is: it costs a few pages and no risk.
    func unmapRetired(_ patch: LivePatch, in id: ProcessID, _ bias: LoadBias) -> PatchMemory {
        do {
            let target = try Target(patch, id, bias: bias, held)
            guard let plan = target.found?.plan, case .retired = target.found?.state else {
                return .kept(Failure("memory-in-use", "the patch is not retired.", at: "process \(id)"))
            }
            if let function = patch.contents.functionWhoseAddressIsTaken {
                return .kept(
                    Failure(
                        "memory-in-use", "new code takes the address of \(function), and the kernel may hold it (a signal handler).",
                        at: "process \(id)"))
            }
            // The unwinder points to what it was told of. Whether anybody else points to the rest is looked at first: while a
            // thread may come back there, the unwinder must know the way out.
            let early = PointerSearch(into: plan.mapping, ignoring: plan.unwind.lowerBound..<plan.mapping.upperBound, of: target.memory)
            if let hit = try early.firstHit(in: places(early, target.maps, [], id), guard: nil) {
                return .kept(inUse(hit, target.maps, id))
            }
            if let failure = deregisterFrames(plan, target) { return .kept(failure) }
            // Only the unwinder has pointers to unwind data, and it leaves some in memory that it has freed.
            let search = PointerSearch(into: plan.mapping, ignoring: plan.unwind, of: target.memory)
            if let hit = try search.firstHit(in: places(search, target.maps, [], id), guard: nil) {
                return .kept(inUse(hit, target.maps, id))
            }

            let call = try tracer.prepare([.unmap(plan.base, bytes: plan.layout.size)], in: target.handle, maps: target.maps)
            var isAsked = false
            do {
                let stop = try tracer.withStopped(target.handle, timeout: budget.pause) { stopped throws -> Failure? in
                    // Somebody else may have applied it again in the meantime.
                    let isOff = try target.memory.read(at: plan.commit, count: 1) == [0]
                    for site in plan.sites where try target.memory.read(at: site.address, count: site.new.count) == site.new {
                        return Failure("memory-in-use", "a patch site jumps there again.", at: "process \(id) \(site.function)")
                    }
                    guard isOff else { return Failure("memory-in-use", "the patch is in force again.", at: "process \(id)") }
                    let maps = try target.handle.mappings()
                    let scramble = stopped.threads.first.flatMap { search.pointerGuard(of: $0.threadPointer) }
                    for thread in stopped.threads {
                        if let hit = search.firstHit(in: stopped.registerWords(of: thread), guard: scramble) { return inUse(hit, maps, id) }
                    }
                    if let hit = try search.firstHit(in: places(search, maps, stopped.threads.map(\.stackPointer), id), guard: scramble) {
                        return inUse(hit, maps, id)
                    }
                    checkpoint(.stopped)
                    isAsked = true
                    try stopped.perform(call)
                    return nil
                }
                if let failure = stop.value {
                    tracer.abandon(call)
                    return .kept(failure)
                }
                return .unmapped(pause: stop.pause)
            } catch {
                if !isAsked { tracer.abandon(call) }
                throw error
            }
        } catch let failure as Failure {
            return .kept(failure)
        } catch {
            return .kept(Failure("unexpected", "\(error)", at: "process \(id)"))
        }
    }

    private func places(
        _ search: PointerSearch, _ maps: [Mapping], _ stackPointers: [RuntimeAddress], _ id: ProcessID
    ) throws(Failure) -> [Range<RuntimeAddress>] {
        let places = search.places(in: maps, stackPointers: stackPointers)
        let bytes = places.reduce(0) { $0 &+ ($1.upperBound.value &- $1.lowerBound.value) }
        guard bytes <= Self.searchMaxBytes else {
            throw Failure(
                "memory-in-use", "it has \(bytes >> 20) MiB in which a pointer could be, too much to search while it stands still.",
                at: "process \(id)")
        }
        return places
    }

    private func inUse(_ hit: PointerSearch.Hit, _ maps: [Mapping], _ id: ProcessID) -> Failure {
        guard let address = hit.address else {
            return Failure("memory-in-use", "a register holds \(hex(hit.pointer)), which may point there.", at: "process \(id)")
        }
        let name = maps.mapping(at: address)?.path ?? ""
        return Failure(
            "memory-in-use", "the word at \(address)\(name.isEmpty ? "" : " in \(name)") may point there: \(hex(hit.pointer)).",
            at: "process \(id)")
    }
}

extension PatchContents {
    /// A function of the patch whose address is used otherwise than for a jump or call in the patch itself; nil if none is.
    var functionWhoseAddressIsTaken: String? {
        for r in relocations where symbols.indices.contains(r.symbol) {
            guard case .part(.text, _) = symbols[r.symbol].place else { continue }
            switch r.part {
            case .text where isBranch(at: r.offset): continue
            // Distances in jump tables, and where unwind data says a function begins.
            case .readOnly where r.kind == .pc32, .unwind: continue
            default: return symbols[r.symbol].name
            }
        }
        return nil
    }

    /// Whether the 32 bits at `offset` are the distance of a call, jmp or jcc.
    private func isBranch(at offset: Int) -> Bool {
        let text = self[.text]
        guard offset >= 2, offset <= text.count else { return false }
        return text[offset - 1] == 0xe8 || text[offset - 1] == 0xe9 || text[offset - 2] == 0x0f && text[offset - 1] & 0xf0 == 0x80
    }
}
