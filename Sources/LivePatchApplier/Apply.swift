// Carries out one patch in one process, all or nothing. The recipe:
// claim -> look -> plan -> check the old bytes -> map and write while it runs -> write sites, in one stop at a safe point
// (Flip) or by putting pages in place (PageSwap) -> commit with one store -> read back -> watch old calls end (Settling).
// Revert is the same with the bytes exchanged and no mapping.

import ELF
import LivePatch
import ProcessControl

public struct Applier: Sendable {
    let tracer: Tracer
    /// Patches this host holds: what is found in a process is judged by them.
    let held: @Sendable (PatchID) -> LivePatch?
    /// Shared by all processes that this applier works on.
    let tables = UnwindTables()
    let memoryGroups = MemoryGroups()
    let switchers = StackSwitchers()
    /// Places for a patch's memory that are tried when others are faster.
    static let placesMax = 10
    public var budget: TransitionBudget
    public var path = TransitionPath.automatic
    /// Where code that several processes map is kept; nil: each has its own copy.
    public var codeFiles: CodeFiles?
    /// Stacks are read beside the stopping of other threads.
    public var usesSecondProcessor = KernelLimits.processors() >= StackScan.processorsMin
    /// Called between any two steps; throwing there abandons the transition as a crash would.
    public var checkpoint: @Sendable (TransitionStep) -> Void

    public init(
        _ tracer: Tracer, budget: TransitionBudget = TransitionBudget(), held: @escaping @Sendable (PatchID) -> LivePatch? = { _ in nil },
        checkpoint: @escaping @Sendable (TransitionStep) -> Void = { _ in }
    ) {
        self.tracer = tracer
        self.held = held
        self.budget = budget
        self.checkpoint = checkpoint
    }

    /// Makes `process` run `patch`.
    public func apply(_ patch: LivePatch, to id: ProcessID, acceptances: [Acceptance] = []) -> ProcessOutcome {
        outcome(of: id) {
            let handle = try ProcessHandle(id)
            try handle.claim(patience: budget.timeout)
            return try withExtendedLifetime(handle) { try transition(patch, id, acceptances) }
        }
    }

    /// What `apply` would write, without touching the process. Nil outcome fields never occur: either a plan or why not.
    public func plan(_ patch: LivePatch, for id: ProcessID, acceptances: [Acceptance] = []) -> Result<ApplyPlan, Failure> {
        do {
            let target = try Target(patch, id, held)
            guard let object = try target.object() else {
                return .failure(Failure("not-affected", "the object is not loaded there.", at: "process \(id)"))
            }
            let plan = try prepared(patch, target, object, acceptances)
            try target.requireMemory(for: plan)
            try target.checkOldBytes(plan, under: target.overlapping(plan, held))
            return .success(plan)
        } catch let failure as Failure {
            return .failure(failure)
        } catch {
            return .failure(Failure("unexpected", "\(error)", at: "process \(id)"))
        }
    }

    /// Puts the old code back in `process`. `unmap`: and takes the patch's memory away, if nothing can point there; of a
    /// patch that was reverted before, too.
    public func revert(_ patch: LivePatch, in id: ProcessID, unmap: Bool = false) -> ProcessOutcome {
        outcome(of: id) {
            let handle = try ProcessHandle(id)
            try handle.claim(patience: budget.timeout)
            return try withExtendedLifetime(handle) { try revertClaimed(patch, id, unmap) }
        }
    }

    private func revertClaimed(_ patch: LivePatch, _ id: ProcessID, _ unmap: Bool) throws -> ProcessOutcome {
        let target = try Target(patch, id, held)
        guard let found = target.found else { return .notPatched }
        switch found.state {
        case .unfinished, .orphaned: return .notPatched
        case .retired:
            guard unmap, let plan = found.plan else { return .notPatched }
            var report = TransitionReport(pause: .zero, attempts: 0, mappedBytes: plan.layout.size, isReused: true)
            report.memory = unmapRetired(patch, in: id)
            return .reverted(report)
        case .couldNotTell(let failure): return .couldNotTell(failure)
        case .patched, .interrupted:
            guard let plan = found.plan else { return .notPatched }
            let outcome = try restore(plan, target)
            guard unmap, case .reverted(var report) = outcome else { return outcome }
            report.memory = unmapRetired(patch, in: id)
            return .reverted(report)
        }
    }

    private func outcome(of id: ProcessID, _ body: () throws -> ProcessOutcome) -> ProcessOutcome {
        do { return try body() } catch let failure as Failure {
            // Whatever failed may have failed because it ended.
            let isGone = failure.saysProcessIsGone || (try? ProcessHandle(id))?.isAlive != true
            return isGone ? .gone : failure.saysProcessIsUnreadable ? .couldNotTell(failure) : .refused(failure)
        } catch {
            return .couldNotTell(Failure("unexpected", "\(error)"))
        }
    }

    private func transition(_ patch: LivePatch, _ id: ProcessID, _ acceptances: [Acceptance]) throws -> ProcessOutcome {
        var target = try Target(patch, id, held)
        guard let object = try target.object() else { return .notAffected }
        switch target.found?.state {
        case .patched:
            guard let found = target.found, let plan = found.plan else { return .alreadyPatched }
            // An unwinder that the process loaded since then does not know the patch yet.
            let frames = registerFrames(plan, target, patience: Self.framesPatience)
            guard found.header?.isEffective == false else { return .alreadyPatched }
            let finishing = settle(plan, on: true, target)
            if finishing.isEmpty { return .alreadyPatched }
            var report = TransitionReport(pause: .zero, attempts: 0, mappedBytes: plan.layout.size, isReused: true)
            report.finishing = finishing
            report.frames = frames
            return .patched(report)
        case .couldNotTell(let failure): return .couldNotTell(failure)
        case .interrupted:
            // Half-written by somebody who was killed: back to the old code first, then forward from a known state.
            if let plan = target.found?.plan {
                let undone = try restore(plan, target)
                guard undone.isDone else { return undone }
                target = try Target(patch, id, held)
            }
        case .retired, .unfinished, .orphaned, nil: break
        }
        var plan = try prepared(patch, target, object, acceptances)
        try target.requireMemory(for: plan)
        let replaced = try target.overlapping(plan, held)
        try target.checkOldBytes(plan, under: replaced)

        try awaitOwnMemory(target.handle, until: .now + budget.timeout)
        var sharing = CodeSharing.none(nil)
        if target.found == nil {
            var placesLeft = Self.placesMax
            while true {
                do {
                    sharing = try map(plan, target)
                    break
                } catch let failure as Failure where failure.code == "call-failed" {
                    // A thread of the process may have mapped something there in the meantime: then elsewhere.
                    placesLeft -= 1
                    guard placesLeft > 0, (try target.handle.mappings()).contains(where: { $0.range.overlaps(plan.mapping) }) else {
                        throw failure
                    }
                    target = try Target(patch, id, held)
                    plan = try prepared(patch, target, object, acceptances)
                }
            }
        }
        // What was retired has data that old pointers may reach: it is used again as it is. Anything else is written.
        let isReused: Bool
        if case .retired = target.found?.state { isReused = true } else { isReused = false }
        // Pointers into what an unloaded object left behind may be anywhere.
        let isUntouched = !isReused && target.found?.isOrphaned != true
        do {
            // The header first: whoever finds the mapping from now on knows what it is.
            var header = plan.header
            if isReused { header.phase = .complete }
            try target.memory.write(try header.encode(), at: plan.base)
            if !isReused { try fill(plan, target, isNew: isUntouched, sharing) }
            try target.memory.write([UInt8(TargetHeader.Phase.complete.rawValue), 0, 0, 0], at: plan.base + TargetHeader.phaseOffset)
            checkpoint(.written)
        } catch {
            // Nothing has been switched: nobody can be in the mapping.
            if isUntouched { unmap(plan, target) }
            throw error
        }
        let frames = registerFrames(
            plan, target, patience: patch.needsUnwinder ? budget.timeout : min(Self.framesPatience, budget.timeout))
        let isKept = !isUntouched || frames.map(\.mayHoldMemory) ?? false
        if patch.needsUnwinder, case .notRegistered(let failure)? = frames {
            if !isKept { unmap(plan, target) }
            return .refused(failure)
        }
        switch switched(off: replaced, on: plan, target) {
        case .switched(let pause, let attempts, let finishing):
            var report = TransitionReport(
                pause: pause, attempts: attempts, mappedBytes: plan.layout.size, isReused: isReused, replaced: replaced.map(\.patch))
            report.finishing = finishing
            report.frames = frames
            report.residentBytes = plan.layout.size + plan.memoryNeed().unsharedBytes
            if case .none(let because) = sharing { report.notShared = because }
            return try verified(target, forward: true, report)
        case .untouched(let outcome):
            if !isKept { unmap(plan, target) }
            return outcome
        case .unknown(let failure): return .couldNotTell(failure)
        }
    }

    /// Switches by the path that suits the process, and watches old calls end where the path lets them go on.
    private func switched(off: [ApplyPlan], on: ApplyPlan?, _ target: Target) -> Flip {
        do {
            if let plan = on ?? off.first, off.count + (on == nil ? 0 : 1) == 1 {
                switch try pageSwap(plan, on: on != nil, target) {
                case .done: return .switched(pause: .zero, attempts: 0, finishing: settle(plan, on: on != nil, target))
                case .notPossible(let failure): if case .pageSwap = path { return .untouched(.refused(failure)) }
                }
            }
        } catch {
            return error.saysProcessIsGone ? .untouched(.gone) : .unknown(error)
        }
        return flip(off: off, on: on, target)
    }

    /// The plan for a mapping that exists, or for the best free place.
    private func prepared(_ patch: LivePatch, _ target: Target, _ object: LoadedObject, _ acceptances: [Acceptance]) throws -> ApplyPlan {
        if patch.needsUnwinder { try requireUnwinder(target) }
        let imports = try Imports(target.objects, target.memory).addresses(for: patch, of: object)
        if let found = target.found {
            return try patch.plan(bias: object.bias, base: found.base, imports: imports, acceptances: acceptances)
        }
        let size = PatchLayout(patch.contents).size
        guard let base = FreeGap.find(size: size + PageSwap.spareBytes, near: object.extent, in: target.maps) else {
            throw Failure(
                "no-room", "no \(size) free bytes lie within 2 GiB of the object.", at: "process \(target.process)",
                remedy: "Restart the process with the fixed package.")
        }
        return try patch.plan(bias: object.bias, base: base, imports: imports, acceptances: acceptances)
    }

    // MARK: While the target runs

    private func map(_ plan: ApplyPlan, _ target: Target) throws -> CodeSharing {
        let sharing = try mapShared(plan, target)
        if case .some = sharing {
            checkpoint(.mapped)
            return sharing
        }
        // Executable first: a process that forbids making memory executable (PR_SET_MDWE) lets it be taken away.
        var calls: [SystemCall] = [.mapAnonymous(at: plan.base, bytes: plan.layout.size, [.read, .execute])]
        func protect(_ division: Range<Int>, _ permissions: Mapping.Permissions) {
            guard !division.isEmpty else { return }
            calls.append(.protect(plan.base + division.lowerBound, bytes: division.count, permissions))
        }
        protect(plan.layout.header, [.read])
        protect(plan.layout.readOnly, [.read])
        protect(plan.layout.data, [.read, .write])
        try tracer.perform(calls, in: target.handle, maps: target.maps)
        checkpoint(.mapped)
        return sharing
    }

    /// Not new: an unwinder may hold on to the block that says whether it knows the patch.
    private func fill(_ plan: ApplyPlan, _ target: Target, isNew: Bool, _ sharing: CodeSharing) throws {
        // What is written to is shared no longer.
        if !sharing.holds(plan.layout.text) { try target.memory.write(plan.text, at: plan.newCode.lowerBound) }
        if !sharing.holds(plan.layout.readOnly) {
            try target.memory.write(plan.readOnly, at: plan.base + plan.layout.readOnly.lowerBound)
        }
        let end = isNew ? plan.data.count : plan.layout.registrationBlock.map { $0 - plan.layout.data.lowerBound } ?? plan.data.count
        try target.memory.write(Array(plan.data.prefix(end)), at: plan.base + plan.layout.data.lowerBound)
        guard try target.memory.read(at: plan.newCode.lowerBound, count: plan.text.count) == plan.text,
            try target.memory.read(at: plan.base + plan.layout.readOnly.lowerBound, count: plan.readOnly.count) == plan.readOnly
        else {
            throw Failure(
                "read-back", "the mapped code does not read back as written.", at: "process \(target.process)",
                remedy: "Nothing was changed.")
        }
    }

    /// Nothing ever ran there, so nothing can point there.
    func unmap(_ plan: ApplyPlan, _ target: Target) {
        _ = try? tracer.perform([.unmap(plan.base, bytes: plan.layout.size)], in: target.handle, maps: target.maps)
    }

    private func restore(_ plan: ApplyPlan, _ target: Target) throws -> ProcessOutcome {
        switch switched(off: [plan], on: nil, target) {
        case .switched(let pause, let attempts, let finishing):
            var report = TransitionReport(pause: pause, attempts: attempts, mappedBytes: plan.layout.size, isReused: true)
            report.finishing = finishing
            return try verified(target, forward: false, report)
        case .untouched(let outcome): return outcome
        case .unknown(let failure): return .couldNotTell(failure)
        }
    }

    /// Reads everything back after the release: only this makes "patched" true.
    private func verified(_ target: Target, forward: Bool, _ report: TransitionReport) throws -> ProcessOutcome {
        let after = try Target(target.patch, target.process, held)
        switch (after.found?.state, forward) {
        case (.patched, true):
            var report = report
            report.sharedBytes = after.found?.sharedBytes ?? 0
            report.residentBytes -= report.sharedBytes
            return .patched(report)
        case (.retired, false): return .reverted(report)
        case (.couldNotTell(let failure), _): return .couldNotTell(failure)
        default:
            return .couldNotTell(Failure("read-back", "the process does not read back as it was left.", at: "process \(target.process)"))
        }
    }
}
