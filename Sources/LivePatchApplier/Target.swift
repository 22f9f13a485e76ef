// One process as it is before a transition: what is loaded, which patches are in it, whether the bytes are those expected.

import ELF
import LivePatch
import ProcessControl

/// One process as it was looked at, before anything is done to it, with one loaded copy of the object in view.
struct Target {
    let patch: LivePatch
    let process: ProcessID
    let handle: ProcessHandle
    let memory: ProcessMemory
    let maps: [Mapping]
    let objects: [LoadedObject]
    /// The copy of the patched build in view; nil when it is not loaded.
    let object: LoadedObject?
    /// Our mapping of this patch for it, if there is one.
    let found: FoundPatch?
    /// Mappings of other patches, and of this one for other copies.
    let others: [FoundPatch]

    /// `bias`: of the copy in view; the first one otherwise.
    init(_ patch: LivePatch, _ id: ProcessID, bias: LoadBias? = nil, _ held: (PatchID) -> LivePatch?) throws {
        self.patch = patch
        process = id
        handle = try ProcessHandle(id)
        memory = try handle.memory()
        maps = try handle.mappings()
        objects = Instances.objects(in: maps, of: memory)
        let all = PatchStates.find(in: maps, of: memory, objects: objects) { $0 == patch.id ? patch : held($0) }
        // What could not be read because the process ended is not "not there".
        try memory.requireAlive()
        let object = objects.first { $0.buildID == patch.buildID && (bias == nil || $0.bias == bias) }
        self.object = object
        let mine = all.filter { $0.header?.patch == patch.id && object != nil && $0.header?.bias == object?.bias }
        let found = mine.first { !$0.isOrphaned } ?? mine.first
        self.found = found
        others = all.filter { $0.base != found?.base }
    }

    /// Where the copies of the patched build are loaded.
    var copies: [LoadBias] {
        var seen: Set<LoadBias> = []
        return objects.filter { $0.buildID == patch.buildID && seen.insert($0.bias).inserted }.map(\.bias)
    }

    /// Patches in force that replace some of the same functions, hooked or not: callers inside such a patch would go on using
    /// its copies. They make way for the new one in the same stop.
    /// Failure: `other-patch` when one is in the way that this host does not hold.
    func overlapping(_ plan: ApplyPlan, _ held: (PatchID) -> LivePatch?) throws -> [ApplyPlan] {
        var result: [ApplyPlan] = []
        for other in others {
            switch other.state {
            case .patched, .interrupted:
                guard let theirs = other.plan else { continue }
                let starts = Set(theirs.guarded.map(\.range.lowerBound))
                if plan.guarded.contains(where: { starts.contains($0.range.lowerBound) }) { result.append(theirs) }
            case .couldNotTell(let failure):
                guard let header = other.header, header.isCommitted, header.buildID == plan.buildID, header.bias == plan.bias else {
                    continue
                }
                throw Failure(
                    "other-patch", "another patch of this object seems to be in force: \(failure.sentence)", at: "process \(process)",
                    remedy: "Revert it first, with its own file: fother revert FILE --pid \(process)")
            case .retired, .unfinished, .orphaned: continue
            }
        }
        return result
    }

    /// Failures: `map-count`, `no-memory-headroom`.
    func requireMemory(for plan: ApplyPlan) throws(Failure) {
        try MemoryHeadroom(handle, mappingCount: maps.count).require(plan.memoryNeed(isMapped: found != nil), of: handle)
    }

    /// Every function that the patch replaces must have the bytes of the old build.
    func checkOldBytes(_ plan: ApplyPlan, under others: [ApplyPlan]) throws {
        for function in plan.guarded {
            var bytes = try memory.read(at: function.range.lowerBound, count: function.range.upperBound - function.range.lowerBound)
            // Where a patch that makes way has its jumps, the old bytes are known. A jump may be longer than a short function.
            for site in others.flatMap(\.sites) {
                for (k, byte) in site.old.enumerated() where function.range.contains(site.address + k) {
                    bytes[site.address + k - function.range.lowerBound] = byte
                }
            }
            guard sha256(bytes[...]) == function.hash else { throw bytesDiffer(function.name) }
        }
        let theirs = Set(others.flatMap(\.sites).map(\.address))
        for bridge in plan.sites where !bridge.isEntry && !theirs.contains(bridge.address) {
            let bytes = try memory.read(at: bridge.address, count: bridge.new.count)
            // Its own may still be there from before; it leads to code that is the same.
            guard (bridge.vacant + [bridge.new]).contains(bytes) else { throw bytesDiffer(bridge.function) }
        }
    }

    private func bytesDiffer(_ function: String) -> Failure {
        Failure(
            "bytes-differ", "the code in memory is not that of the build: something else has changed it.",
            at: "process \(process) \(function)",
            remedy: "Another patch, a debugger or a hook may be there; see fother ps --pid \(process).")
    }
}
