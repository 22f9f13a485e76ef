// Says which patches are in a process, by what is in its memory. A header is a claim: only site bytes and mapped code
// equal to what a patch held by this host gives for this instance count as patched.

import ELF
import LivePatch
import ProcessControl

/// A patch's mapping in a process, and what is true of it.
public struct FoundPatch: Sendable {
    public enum State: Sendable {
        /// Every site and all of the mapped code were read and are what the patch gives. Calls run the new code; whether a
        /// thread may still be in an old call is for the header's effective byte to say.
        case patched
        /// Every site has its old bytes; the memory waits for reuse.
        case retired
        /// Mapped for this patch, not completely written, and no site was ever touched: nothing has run there.
        case unfinished
        /// Some sites jump to stubs that still run the old code: Fother was killed on the way. The old code runs.
        case interrupted
        /// The object it was for has been unloaded, or loaded anew from its file: nothing jumps here any more.
        case orphaned
        case couldNotTell(Failure)
    }
    public var base: RuntimeAddress
    /// Nil when the header could not be read.
    public var header: TargetHeader?
    public var state: State
    /// What the patch held by this host gives here; nil when it is not held or does not fit.
    public var plan: ApplyPlan?
    /// Bytes of the mapping that are pages of a file, and the same for all processes that map it.
    public var sharedBytes = 0
    /// Memory that the process does not share with others because of the patch, at most. Nil without a plan.
    public var residentBytes: Int? { plan.map { $0.layout.size + $0.memoryNeed().unsharedBytes - sharedBytes } }

    var isOrphaned: Bool {
        if case .orphaned = state { true } else { false }
    }
}

public enum PatchStates {
    /// Anonymous read-only mappings of a process that begin with a patch header, each judged.
    /// `held` gives the patch with an id, if this host holds it.
    public static func find(
        in maps: [Mapping], of memory: some MemoryReader, objects: [LoadedObject], held: (PatchID) -> LivePatch?
    ) -> [FoundPatch] {
        var result: [FoundPatch] = []
        for mapping in maps
        where mapping.inode == 0 && mapping.permissions == [.read] && (mapping.path.isEmpty || mapping.path.hasPrefix("[anon")) {
            let base = mapping.range.lowerBound
            guard let magic = try? memory.read(at: base, count: TargetHeader.magic.count), magic == TargetHeader.magic else { continue }
            var found = judge(base, maps, memory, objects, held)
            if let plan = found.plan {
                found.sharedBytes = [plan.layout.text, plan.layout.readOnly].reduce(0) { sum, division in
                    sum + (maps.mapping(at: base + division.lowerBound)?.isFile == true ? division.count : 0)
                }
            }
            result.append(found)
        }
        return result
    }

    private static func judge(
        _ base: RuntimeAddress, _ maps: [Mapping], _ memory: some MemoryReader, _ objects: [LoadedObject], _ held: (PatchID) -> LivePatch?
    ) -> FoundPatch {
        func couldNotTell(_ header: TargetHeader?, _ code: String, _ sentence: String, _ remedy: String = "") -> FoundPatch {
            FoundPatch(
                base: base, header: header, state: .couldNotTell(Failure(code, sentence, at: "patch mapping at \(base)", remedy: remedy)),
                plan: nil)
        }
        let header: TargetHeader
        do {
            // Two reads: the counts say how long the header is, and its own limits bound that.
            let first = try memory.read(at: base, count: PatchLayout.page)
            let sites = Int(Bytes(first, name: "header").u32(16) ?? 0)
            guard sites <= TargetHeader.sitesMax else { return couldNotTell(nil, "header-malformed", "the header claims \(sites) sites.") }
            let size = max(PatchLayout.page, TargetHeader.size(sites: sites))
            header = try TargetHeader(parsing: size > first.count ? memory.read(at: base, count: size) : first, at: base)
        } catch let failure as Failure {
            return FoundPatch(base: base, header: nil, state: .couldNotTell(failure), plan: nil)
        } catch {
            return couldNotTell(nil, "memory-unreadable", "the header cannot be read: \(error).")
        }
        guard let patch = held(header.patch) else {
            return couldNotTell(
                header, "patch-not-held", "it claims to be patch \(header.patch.short), which this host does not hold.",
                "Give the patch file: fother ps --patch FILE")
        }
        let plan: ApplyPlan
        do throws(Failure) {
            let imports = try Imports(objects, memory).addresses(for: patch, boundAt: base)
            plan = try patch.plan(bias: header.bias, base: base, imports: imports, acceptances: header.acceptances)
        } catch {
            return couldNotTell(header, error.code, error.sentence)
        }
        var expected = plan.header
        expected.phase = header.phase
        expected.isCommitted = header.isCommitted
        expected.isEffective = header.isEffective
        guard header == expected, header.buildID == patch.buildID else {
            return couldNotTell(header, "header-contradicts", "the header is not what the patch gives here.")
        }
        guard objects.contains(where: { $0.buildID == patch.buildID && $0.bias == header.bias }) else {
            return FoundPatch(base: base, header: header, state: .orphaned, plan: plan)
        }
        return judge(plan, header, maps, memory)
    }

    /// Compares memory with a plan for the same place.
    private static func judge(_ plan: ApplyPlan, _ header: TargetHeader, _ maps: [Mapping], _ memory: some MemoryReader) -> FoundPatch {
        func answer(_ state: FoundPatch.State) -> FoundPatch { FoundPatch(base: plan.base, header: header, state: state, plan: plan) }
        func couldNotTell(_ code: String, _ sentence: String) -> FoundPatch {
            answer(.couldNotTell(Failure(code, sentence, at: "patch \(plan.patch.short) at \(plan.base)")))
        }
        do {
            // A bridge without its entry leads nobody anywhere, so that only an entry is a site that is "old".
            var new = 0, old = 0, newEntries = 0
            for site in plan.sites {
                let bytes = try memory.read(at: site.address, count: site.new.count)
                if bytes == site.new {
                    new += 1
                    if site.isEntry { newEntries += 1 }
                } else if site.vacant.contains(bytes) {
                    old += 1
                }
            }
            if header.phase == .prepared, old == plan.sites.count { return answer(.unfinished) }
            let text = try memory.read(at: plan.newCode.lowerBound, count: plan.text.count)
            let readOnly = try memory.read(at: plan.base + plan.layout.readOnly.lowerBound, count: plan.readOnly.count)
            guard text == plan.text, readOnly == plan.readOnly else {
                return couldNotTell("code-contradicts", "the mapped code or data is not what the patch gives.")
            }
            for (division, permissions) in [
                (plan.layout.text, Mapping.Permissions([.read, .execute])), (plan.layout.readOnly, Mapping.Permissions([.read])),
            ] where !division.isEmpty {
                guard maps.mapping(at: plan.base + division.lowerBound)?.permissions == permissions else {
                    return couldNotTell("code-contradicts", "the mapped code does not have the protection the patch gives it.")
                }
            }
            // Off, and none of the sites comes here: what stands there (a newer patch's jump) is not this patch's business.
            if !header.isCommitted, newEntries == 0 { return answer(.retired) }
            guard new + old == plan.sites.count else {
                return couldNotTell("site-altered", "\(plan.sites.count - new - old) patch sites hold neither the jump nor the old bytes.")
            }
            switch (header.isCommitted, new) {
            case (true, plan.sites.count): return answer(.patched)
            case (false, _): return answer(.interrupted)
            case (true, 0): return answer(.orphaned)
            default:
                return couldNotTell("header-contradicts", "it is committed, and only \(new) of \(plan.sites.count) sites have the jump.")
            }
        } catch let failure as Failure {
            return answer(.couldNotTell(failure))
        } catch {
            return couldNotTell("memory-unreadable", "\(error).")
        }
    }
}
