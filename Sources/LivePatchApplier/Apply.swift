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

    /// What `apply` would write, without touching the process, for the first copy of the object.
    public func plan(_ patch: LivePatch, for id: ProcessID, acceptances: [Acceptance] = []) -> Result<ApplyPlan, Failure> {
        plans(patch, for: id, acceptances: acceptances).map { $0[0] }
    }

    /// The same for each copy: never empty. Where there are several, their mappings are not yet kept apart from each other.
    public func plans(_ patch: LivePatch, for id: ProcessID, acceptances: [Acceptance] = []) -> Result<[ApplyPlan], Failure> {
        do {
            var plans: [ApplyPlan] = []
            for bias in try Target(patch, id, held).copies {
                let target = try Target(patch, id, bias: bias, held)
                guard let object = target.object else { continue }
                let plan = try prepared(patch, target, object, acceptances)
                try target.requireMemory(for: plan)
                try target.checkOldBytes(plan, under: target.overlapping(plan, held))
                plans.append(plan)
            }
            if plans.isEmpty { return .failure(Failure("not-affected", "the object is not loaded there.", at: "process \(id)")) }
            return .success(plans)
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
        var off: [(plan: ApplyPlan, target: Target)] = []
        var retired: [(plan: ApplyPlan, bias: LoadBias)] = []
        for bias in try Target(patch, id, held).copies {
            let target = try Target(patch, id, bias: bias, held)
            switch target.found?.state {
            case .unfinished, .orphaned, nil: continue
            case .couldNotTell(let failure): return .couldNotTell(failure)
            case .retired: if let plan = target.found?.plan { retired.append((plan, bias)) }
            case .patched, .interrupted: if let plan = target.found?.plan { off.append((plan, target)) }
            }
        }
        var report: TransitionReport
        if off.isEmpty {
            guard unmap, !retired.isEmpty else { return .notPatched }
            let bytes = retired.reduce(0) { $0 + $1.plan.layout.size }
            report = TransitionReport(pause: .zero, attempts: 0, mappedBytes: bytes, isReused: true)
        } else {
            let outcome = try restore(off)
            guard case .reverted(let done) = outcome else { return outcome }
            report = done
        }
        if unmap {
            for bias in retired.map(\.bias) + off.map(\.plan.bias) {
                let memory = unmapRetired(patch, in: id, bias)
                // What stays is what counts.
                if case .kept(_?) = report.memory { continue }
                report.memory = memory
            }
        }
        return .reverted(report)
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

    /// One copy of the object with everything in place but the jumps.
    private struct Prepared {
        var target: Target
        var plan: ApplyPlan
        var replaced: [ApplyPlan]
        var isReused: Bool
        /// Something may hold on to the mapping.
        var isKept: Bool
        var frames: FrameState?
        var notShared: Failure?
    }
    private enum Readiness {
        case ready(Prepared)
        /// Nothing is to be switched: it is as asked, or cannot be.
        case over(ProcessOutcome)
    }

    private func transition(_ patch: LivePatch, _ id: ProcessID, _ acceptances: [Acceptance]) throws -> ProcessOutcome {
        let copies = try Target(patch, id, held).copies
        var ready: [Prepared] = []
        func drop() { for one in ready where !one.isKept { unmap(one.plan, one.target) } }
        var already = ProcessOutcome.alreadyPatched
        do {
            for bias in copies {
                switch try prepare(patch, id, bias, acceptances) {
                case .ready(let one): ready.append(one)
                case .over(.alreadyPatched): continue
                case .over(.patched(let report)): already = .patched(report)
                case .over(let outcome):
                    drop()
                    return outcome
                }
            }
        } catch {
            drop()
            throw error
        }
        guard let first = ready.first else { return copies.isEmpty ? .notAffected : already }
        // All of them at one moment, or none.
        switch switched(off: ready.flatMap(\.replaced), on: ready.map(\.plan), first.target) {
        case .switched(let pause, let attempts, let finishing):
            var report = TransitionReport(
                pause: pause, attempts: attempts, mappedBytes: ready.reduce(0) { $0 + $1.plan.layout.size },
                isReused: ready.allSatisfy(\.isReused), replaced: ready.flatMap(\.replaced).map(\.patch))
            report.finishing = finishing
            if case .patched(let other) = already { report.finishing += other.finishing }
            report.copies = ready.count
            report.frames = ready.first { if case .notRegistered? = $0.frames { true } else { false } }?.frames ?? first.frames
            report.residentBytes = ready.reduce(0) { $0 + $1.plan.layout.size + $1.plan.memoryNeed().unsharedBytes }
            report.notShared = ready.compactMap(\.notShared).first
            return try verified(ready.map(\.target), forward: true, report)
        case .untouched(let outcome):
            drop()
            return outcome
        case .unknown(let failure): return .couldNotTell(failure)
        }
    }

    private func prepare(_ patch: LivePatch, _ id: ProcessID, _ bias: LoadBias, _ acceptances: [Acceptance]) throws -> Readiness {
        var target = try Target(patch, id, bias: bias, held)
        guard let object = target.object else { return .over(.notAffected) }
        switch target.found?.state {
        case .patched:
            guard let found = target.found, let plan = found.plan else { return .over(.alreadyPatched) }
            // An unwinder that the process loaded since then does not know the patch yet.
            let frames = registerFrames(plan, target, patience: Self.framesPatience)
            guard found.header?.isEffective == false else { return .over(.alreadyPatched) }
            let finishing = settle(plan, on: true, target)
            if finishing.isEmpty { return .over(.alreadyPatched) }
            var report = TransitionReport(pause: .zero, attempts: 0, mappedBytes: plan.layout.size, isReused: true)
            report.finishing = finishing
            report.frames = frames
            return .over(.patched(report))
        case .couldNotTell(let failure): return .over(.couldNotTell(failure))
        case .interrupted:
            // Half-written by somebody who was killed: back to the old code first, then forward from a known state.
            if let plan = target.found?.plan {
                let undone = try restore([(plan, target)])
                guard undone.isDone else { return .over(undone) }
                target = try Target(patch, id, bias: bias, held)
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
                    target = try Target(patch, id, bias: bias, held)
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
            return .over(.refused(failure))
        }
        var notShared: Failure?
        if case .none(let because) = sharing { notShared = because }
        return .ready(
            Prepared(
                target: target, plan: plan, replaced: replaced, isReused: isReused, isKept: isKept, frames: frames, notShared: notShared))
    }

    /// Switches by the path that suits the process, and watches old calls end where the path lets them go on.
    private func switched(off: [ApplyPlan], on: [ApplyPlan], _ target: Target) -> Flip {
        do {
            if let plan = (on + off).first, off.count + on.count == 1 {
                switch try pageSwap(plan, on: !on.isEmpty, target) {
                case .done: return .switched(pause: .zero, attempts: 0, finishing: settle(plan, on: !on.isEmpty, target))
                case .notPossible(let failure): if case .pageSwap = path { return .untouched(.refused(failure)) }
                case .halfWay(let failure):
                    // The old code is in force, by jumps that lead back to it; without them it is as if nothing had happened.
                    let undone = flip(off: [plan], on: [], target)
                    guard case .switched = undone else { return .unknown(failure) }
                    if on.isEmpty { return undone }
                    if case .pageSwap = path { return .untouched(.refused(failure)) }
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

    private func restore(_ off: [(plan: ApplyPlan, target: Target)]) throws -> ProcessOutcome {
        guard let first = off.first else { return .notPatched }
        switch switched(off: off.map(\.plan), on: [], first.target) {
        case .switched(let pause, let attempts, let finishing):
            let bytes = off.reduce(0) { $0 + $1.plan.layout.size }
            var report = TransitionReport(pause: pause, attempts: attempts, mappedBytes: bytes, isReused: true)
            report.finishing = finishing
            report.copies = off.count
            return try verified(off.map(\.target), forward: false, report)
        case .untouched(let outcome): return outcome
        case .unknown(let failure): return .couldNotTell(failure)
        }
    }

    /// Reads everything back after the release: only this makes "patched" true.
    private func verified(_ targets: [Target], forward: Bool, _ report: TransitionReport) throws -> ProcessOutcome {
        var report = report
        for target in targets {
            let after = try Target(target.patch, target.process, bias: target.object?.bias, held)
            switch (after.found?.state, forward) {
            case (.patched, true):
                report.sharedBytes += after.found?.sharedBytes ?? 0
                report.residentBytes -= after.found?.sharedBytes ?? 0
            case (.retired, false): continue
            case (.couldNotTell(let failure), _): return .couldNotTell(failure)
            default:
                return .couldNotTell(
                    Failure("read-back", "the process does not read back as it was left.", at: "process \(target.process)"))
            }
        }
        return forward ? .patched(report) : .reverted(report)
    }
}
