// The switch without a stop: copies of the object's pages, with the jumps in them, take the place of the originals in one
// step each; then one store commits. Only for patches whose functions may switch call by call, and only where no old
// instruction begins inside a jump: then no thread can be in the way, wherever it is.

import ELF
import LivePatch
import ProcessControl

enum PageSwap {
    static let pagesMax = 16
    static let page = PatchLayout.page
    /// Room for the copies, kept free behind the patch's mapping.
    static let spareBytes = pagesMax * page
    /// From so many threads on stopping them all takes longer than borrowing one.
    static let threadsMin = 32

    enum Answer {
        case done
        /// Nothing was changed.
        case notPossible(Failure)
        /// Some pages are in place and some are not. All of them run the old code; a stop of all threads must put things in order.
        case halfWay(Failure)
    }
}

extension Applier {
    /// On: puts the jumps in place, then commits. Off: withdraws the commit, then puts the old instructions in place. Throws
    /// only when something failed half-way; whatever is in place then is neutral.
    func pageSwap(_ plan: ApplyPlan, on: Bool, _ target: Target) throws(Failure) -> PageSwap.Answer {
        let copies: [(page: RuntimeAddress, bytes: [UInt8])]
        let spare = plan.spare
        do {
            try checkSwappable(plan, target)
            copies = try pages(plan, on: on, target)
            try tracer.perform(
                [.mapAnonymous(at: spare, bytes: copies.count * PageSwap.page, [.read, .execute])], in: target.handle, maps: target.maps)
            checkpoint(.spareMapped)
        } catch let failure as Failure {
            return .notPossible(failure)
        } catch {
            return .notPossible(Failure("unexpected", "\(error)", at: "\(target.handle)"))
        }
        if !on { try target.memory.write([0], at: plan.commit) }
        if !on { checkpoint(.committed) }
        do {
            for (i, copy) in copies.enumerated() { try target.memory.write(copy.bytes, at: spare + i * PageSwap.page) }
            checkpoint(.spareWritten)
            let moves = copies.enumerated().map { SystemCall.movePage(from: spare + $0.offset * PageSwap.page, onto: $0.element.page) }
            try tracer.perform(moves, in: target.handle, maps: try target.handle.mappings())
            checkpoint(.swapped)
            for site in plan.sites {
                let bytes = try target.memory.read(at: site.address, count: site.new.count)
                guard on ? bytes == site.new : site.vacant.contains(bytes) else {
                    throw Failure("read-back", "a patch site does not read back as written.", at: "\(target.handle) \(site.function)")
                }
            }
        } catch {
            closeHole(copies, target)
            let failure = error as? Failure ?? Failure("unexpected", "\(error)", at: "\(target.handle)")
            // A move that is still under way must not meet what is done next.
            guard failure.code != "call-timeout" else { throw failure }
            let unmap = SystemCall.unmap(spare, bytes: copies.count * PageSwap.page)
            do { try tracer.perform([unmap], in: target.handle, maps: try target.handle.mappings()) } catch { throw failure }
            // The kernel may have refused the first, for code that is sealed, or a later one, for want of room in the map.
            guard try isUntouched(plan, on: on, target) else {
                checkpoint(.swappedInPart)
                return .halfWay(failure)
            }
            if !on {
                // In force again; old code may have been entered meanwhile.
                try target.memory.write([0], at: plan.effective)
                try target.memory.write([1], at: plan.commit)
            }
            return .notPossible(failure)
        }
        if on {
            try target.memory.write([0], at: plan.effective)
            try target.memory.write([1], at: plan.commit)
            checkpoint(.committed)
        }
        return .done
    }

    private func checkSwappable(_ plan: ApplyPlan, _ target: Target) throws {
        func no(_ sentence: String) -> Failure { Failure("page-swap", sentence, at: "\(target.handle)") }
        guard plan.consistency.mode == .perCall, !budget.mustSwitchTogether else { throw no("the functions must switch together.") }
        switch path {
        case .stopAll: throw no("all threads are to stop.")
        case .automatic: if try target.handle.threads().count < PageSwap.threadsMin { throw no("it has few threads.") }
        case .pageSwap: break
        }
        guard plan.sites.allSatisfy({ $0.kind != .entry(isSplit: true) }) else { throw no("a thread may stand inside a patch site.") }
        guard plan.sitePages.count <= PageSwap.pagesMax else { throw no("the sites lie in \(plan.sitePages.count) pages.") }
        // What a killed predecessor started may still happen; it must happen before.
        let rooms = try CallRoom.occupied(in: target.maps, of: target.memory)
        if !rooms.isEmpty {
            let quiet = GuardedRanges(rooms.map { ($0, "a call that another fother started") })
            let words = WordReader(target.memory), walker = StackWalker(target, tables, plan)
            guard seenOutside(quiet, target, words, walker, until: .now).isEmpty else { throw no("a call of another fother is under way.") }
            CallRoom.clear(rooms, of: target.memory)
        }
        let room = plan.spare..<plan.spare + PageSwap.spareBytes
        guard !target.maps.contains(where: { $0.range.overlaps(room) }) else { throw no("the room behind the patch is taken.") }
        try MemoryHeadroom(target.handle, mappingCount: try target.handle.mappings().count).require(plan.swapNeed, of: target.handle)
        // A page put in place of one that was unmapped meanwhile, or of what came there since, would be a catastrophe.
        guard let object = target.objects.first(where: { $0.buildID == plan.buildID && $0.bias == plan.bias }),
            LoadedForGood.contains(object, of: target.objects, target.handle, target.memory)
        else { throw no("the object may be unloaded at any moment.") }
        try awaitOwnMemory(target.handle, until: .now)
    }

    /// Each page of the object with the sites in it as they will be. A page must be what the file says, but for jumps of
    /// patches that are known: a breakpoint that the kernel keeps there for somebody would kill once it is copied.
    private func pages(_ plan: ApplyPlan, on: Bool, _ target: Target) throws -> [(page: RuntimeAddress, bytes: [UInt8])] {
        guard let object = target.objects.first(where: { $0.buildID == plan.buildID && $0.bias == plan.bias }) else {
            throw Failure("page-swap", "the object is not loaded.", at: "\(target.handle)")
        }
        let file = target.handle.pathOfFile(behind: object.first)
        let known = plan.sites + ([target.found].compactMap { $0 } + target.others).compactMap(\.plan).flatMap(\.sites)
        return try plan.sitePages.map { page in
            let end = page + PageSwap.page, last = object.bias.link(end + -1)
            guard target.maps.mapping(at: page)?.permissions == [.read, .execute],
                let segment = object.segments.first(where: {
                    $0.type == Segment.load && $0.isExecutable && $0.address <= last && object.bias.link(page) < $0.address + $0.memorySize
                })
            else { throw Failure("page-swap", "a page of the object is not mapped as its file says.", at: "\(target.handle) \(page)") }
            var bytes = try target.memory.read(at: page, count: PageSwap.page)
            let offset = FileOffset(segment.offset.value &+ object.bias.link(page).value &- segment.address.value)
            var pristine = try RegularFile.read(file, at: offset, count: PageSwap.page)
            pristine += [UInt8](repeating: 0, count: PageSwap.page - pristine.count)
            for site in known {
                for k in 0..<site.new.count where site.address + k >= page && site.address + k < end {
                    let at = site.address + k - page
                    if bytes[at] == site.new[k] || site.vacant.contains(where: { $0[k] == bytes[at] }) { pristine[at] = bytes[at] }
                }
            }
            guard bytes == pristine else {
                throw Failure("page-swap", "a page of the object is not what its file says.", at: "\(target.handle) \(page)")
            }
            for site in plan.sites {
                let after = on ? site.new : site.isEntry ? site.old : PlannedSite.emptyBridge
                for k in 0..<after.count where site.address + k >= page && site.address + k < end {
                    bytes[site.address + k - page] = after[k]
                }
            }
            return (page, bytes)
        }
    }

    /// Whether no page was put in place.
    private func isUntouched(_ plan: ApplyPlan, on: Bool, _ target: Target) throws(Failure) -> Bool {
        for site in plan.sites where site.isEntry {
            let bytes = try target.memory.read(at: site.address, count: site.new.count)
            guard on ? bytes == site.old : bytes == site.new else { return false }
        }
        return true
    }

    /// The kernel takes the old page away before the new one comes; should it run out of memory right there, code is missing,
    /// and every moment counts.
    private func closeHole(_ copies: [(page: RuntimeAddress, bytes: [UInt8])], _ target: Target) {
        guard let maps = try? target.handle.mappings() else { return }
        for copy in copies where maps.mapping(at: copy.page) == nil {
            _ = try? tracer.perform([.mapAnonymous(at: copy.page, bytes: PageSwap.page, [.read, .execute])], in: target.handle, maps: maps)
            try? target.memory.write(copy.bytes, at: copy.page)
        }
    }
}
