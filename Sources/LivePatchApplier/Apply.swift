// Carries out one patch in one process, all or nothing. The recipe:
// look -> plan -> check the old bytes -> map and write while it runs -> stop -> check for a safe point -> write sites ->
// read back -> release -> read back. Revert is the same with the bytes exchanged and no mapping.

import ELF
import LivePatch
import ProcessControl

public struct Applier: Sendable {
    let tracer: Tracer
    /// Patches this host holds: what is found in a process is judged by them.
    let held: @Sendable (PatchID) -> LivePatch?
    /// Shared by all processes that this applier works on.
    let tables = UnwindTables()
    public var budget: TransitionBudget
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
        outcome(of: id) { try transition(patch, id, acceptances) }
    }

    /// What `apply` would write, without touching the process. Nil outcome fields never occur: either a plan or why not.
    public func plan(_ patch: LivePatch, for id: ProcessID, acceptances: [Acceptance] = []) -> Result<ApplyPlan, Failure> {
        do {
            let target = try Target(patch, id, held)
            guard let object = try target.object() else {
                return .failure(Failure("not-affected", "the object is not loaded there.", at: "process \(id)"))
            }
            let plan = try prepared(patch, target, object, acceptances)
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
            let target = try Target(patch, id, held)
            guard let found = target.found else { return .notPatched }
            switch found.state {
            case .unfinished: return .notPatched
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
        case .patched: return .alreadyPatched
        case .couldNotTell(let failure): return .couldNotTell(failure)
        case .interrupted:
            // Half-written by somebody who was killed: back to the old code first, then forward from a known state.
            if let plan = target.found?.plan {
                let undone = try restore(plan, target)
                guard undone.isDone else { return undone }
                target = try Target(patch, id, held)
            }
        case .retired, .unfinished, nil: break
        }
        let plan = try prepared(patch, target, object, acceptances)
        let replaced = try target.overlapping(plan, held)
        try target.checkOldBytes(plan, under: replaced)

        try awaitOwnMemory(target.handle, until: .now + budget.timeout)
        if target.found == nil { try map(plan, target) }
        // What was retired has data that old pointers may reach: it is used again as it is. Anything else is written.
        let isReused: Bool
        if case .retired = target.found?.state { isReused = true } else { isReused = false }
        do {
            // The header first: whoever finds the mapping from now on knows what it is.
            var header = plan.header
            if isReused { header.phase = .complete }
            try target.memory.write(try header.encode(), at: plan.base)
            if !isReused { try fill(plan, target) }
            try target.memory.write([UInt8(TargetHeader.Phase.complete.rawValue), 0, 0, 0], at: plan.base + TargetHeader.phaseOffset)
            checkpoint(.written)
        } catch {
            // Nothing has been switched: nobody can be in the mapping.
            if !isReused { unmap(plan, target) }
            throw error
        }
        switch flip(off: replaced, on: plan, target) {
        case .switched(let pause, let attempts):
            let report = TransitionReport(
                pause: pause, attempts: attempts, mappedBytes: plan.layout.size, isReused: isReused, replaced: replaced.map(\.patch))
            return try verified(target, forward: true, report)
        case .untouched(let outcome):
            if !isReused { unmap(plan, target) }
            return outcome
        case .unknown(let failure): return .couldNotTell(failure)
        }
    }

    /// The plan for a mapping that exists, or for the best free place.
    private func prepared(_ patch: LivePatch, _ target: Target, _ object: LoadedObject, _ acceptances: [Acceptance]) throws -> ApplyPlan {
        if let found = target.found {
            return try patch.plan(bias: object.bias, base: found.base, acceptances: acceptances)
        }
        let size = PatchLayout(patch.contents).size
        guard let base = FreeGap.find(size: size, near: object.extent, in: target.maps) else {
            throw Failure(
                "no-room", "no \(size) free bytes lie within 2 GiB of the object.", at: "process \(target.process)",
                remedy: "Restart the process with the fixed package.")
        }
        return try patch.plan(bias: object.bias, base: base, acceptances: acceptances)
    }

    // MARK: While the target runs

    private func map(_ plan: ApplyPlan, _ target: Target) throws {
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
    }

    private func fill(_ plan: ApplyPlan, _ target: Target) throws {
        try target.memory.write(plan.text, at: plan.newCode.lowerBound)
        try target.memory.write(plan.readOnly, at: plan.base + plan.layout.readOnly.lowerBound)
        try target.memory.write(plan.data, at: plan.base + plan.layout.data.lowerBound)
        guard try target.memory.read(at: plan.newCode.lowerBound, count: plan.text.count) == plan.text,
            try target.memory.read(at: plan.base + plan.layout.readOnly.lowerBound, count: plan.readOnly.count) == plan.readOnly
        else {
            throw Failure(
                "read-back", "the mapped code does not read back as written.", at: "process \(target.process)",
                remedy: "Nothing was changed.")
        }
    }

    /// Nothing ever ran there, so nothing can point there.
    private func unmap(_ plan: ApplyPlan, _ target: Target) {
        _ = try? tracer.perform([.unmap(plan.base, bytes: plan.layout.size)], in: target.handle, maps: target.maps)
    }

    private func restore(_ plan: ApplyPlan, _ target: Target) throws -> ProcessOutcome {
        switch flip(off: [plan], on: nil, target) {
        case .switched(let pause, let attempts):
            return try verified(
                target, forward: false, TransitionReport(pause: pause, attempts: attempts, mappedBytes: plan.layout.size, isReused: true))
        case .untouched(let outcome): return outcome
        case .unknown(let failure): return .couldNotTell(failure)
        }
    }

    // MARK: While it stands still

    private enum Flip {
        case switched(pause: Duration, attempts: Int)
        /// No byte of the process's code was changed, and why.
        case untouched(ProcessOutcome)
        /// Something failed after the switch, so that it is in force and was not seen to be.
        case unknown(Failure)
    }

    /// Whoever else runs in the same memory would not be stopped with the process: mostly a child on its way to an exec.
    private func awaitOwnMemory(_ process: ProcessHandle, until deadline: ContinuousClock.Instant) throws {
        var attempts = 0
        while let other = try process.processesSharingMemory().first {
            guard ContinuousClock.now < deadline else {
                throw Failure(
                    "memory-shared", "process \(other) runs in the same memory, and is not stopped with it.", at: "\(process)",
                    remedy: "Try again when that process has ended or runs its own program.")
            }
            attempts += 1
            tracer.rest(attempts)
        }
    }

    /// Waits for a safe point, as long as the budget allows, and switches there.
    private func flip(off: [ApplyPlan], on: ApplyPlan?, _ target: Target) -> Flip {
        var quiet: [(range: Range<RuntimeAddress>, name: String)] = on?.guarded.map { ($0.range, $0.name) } ?? []
        for plan in off {
            // The patch's code and stubs, and the inside of the jumps, where old instructions will begin again.
            quiet.append((plan.newCode, "patched code"))
            quiet += plan.sites.map { ($0.window, $0.function) }
        }
        // A call that a killed predecessor started may still be on its way to the memory of the patch.
        for room in (try? CallRoom.occupied(in: target.maps, of: target.memory)) ?? [] {
            quiet.append((room, "a call that another fother started"))
        }
        let guarded = GuardedRanges(quiet), words = WordReader(target.memory)
        let change = SiteSwitch(off: off, on: on, memory: target.memory, checkpoint: checkpoint)
        let clock = ContinuousClock()
        let deadline = clock.now + budget.timeout
        var attempts = 0
        var last: ProcessOutcome = .blocked([], attempts: 0)
        // Unwind data is read only when somebody seems to block: most often nobody does.
        var walker: StackWalker?
        while attempts < budget.attemptsMax {
            attempts += 1
            var isSwitched = false
            do {
                try awaitOwnMemory(target.handle, until: deadline)
                // Stacks grow and threads come: the map must be that of this attempt.
                let stacks = StackMap(try target.handle.mappings(), of: target.process)
                let stop = try tracer.withStopped(target.handle, timeout: budget.stopTimeout) { stopped throws -> [BlockingThread] in
                    let blocking = SafePoint.blocking(stopped, guarded, stacks, words, walker)
                    if blocking.isEmpty {
                        try change.perform()
                        isSwitched = true
                    }
                    return blocking
                }
                if isSwitched {
                    checkpoint(.released)
                    return .switched(pause: stop.pause, attempts: attempts)
                }
                last = .blocked(stop.value, attempts: attempts)
                if walker == nil { walker = StackWalker(target.objects, target.memory, tables) }
            } catch {
                let failure = error as? Failure ?? Failure("unexpected", "\(error)", at: "process \(target.process)")
                if isSwitched { return .unknown(failure) }
                if failure.saysProcessIsGone { return .untouched(.gone) }
                last = .refused(failure)
                guard failure.code == "stop-timeout" else { return .untouched(last) }
            }
            if clock.now >= deadline { break }
            tracer.rest(attempts)
        }
        return .untouched(last)
    }

    /// Reads everything back after the release: only this makes "patched" true.
    private func verified(_ target: Target, forward: Bool, _ report: TransitionReport) throws -> ProcessOutcome {
        let after = try Target(target.patch, target.process, held)
        switch (after.found?.state, forward) {
        case (.patched, true): return .patched(report)
        case (.retired, false): return .reverted(report)
        case (.couldNotTell(let failure), _): return .couldNotTell(failure)
        default:
            return .couldNotTell(Failure("read-back", "the process does not read back as it was left.", at: "process \(target.process)"))
        }
    }
}

/// One process as it was looked at, before anything is done to it.
struct Target {
    let patch: LivePatch
    let process: ProcessID
    let handle: ProcessHandle
    let memory: ProcessMemory
    let maps: [Mapping]
    let objects: [LoadedObject]
    /// Our mapping of this patch, if there is one.
    let found: FoundPatch?
    /// Mappings of other patches.
    let others: [FoundPatch]

    init(_ patch: LivePatch, _ id: ProcessID, _ held: (PatchID) -> LivePatch?) throws {
        self.patch = patch
        process = id
        handle = try ProcessHandle(id)
        memory = try handle.memory()
        maps = try handle.mappings()
        objects = Instances.objects(in: maps, of: memory)
        let all = PatchStates.find(in: maps, of: memory, objects: objects) { $0 == patch.id ? patch : held($0) }
        // What could not be read because the process ended is not "not there".
        try memory.requireAlive()
        found = all.first { $0.header?.patch == patch.id }
        others = all.filter { $0.header?.patch != patch.id }
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
            case .retired, .unfinished: continue
            }
        }
        return result
    }

    /// The one instance of the patched build; nil when it is not loaded.
    func object() throws -> LoadedObject? {
        let instances = objects.filter { $0.buildID == patch.buildID }
        guard instances.count <= 1 else {
            throw Failure(
                "mapped-twice", "the object is loaded \(instances.count) times in this process.", at: "process \(process)",
                remedy: "Not supported yet: restart the process with the fixed package.")
        }
        return instances.first
    }

    /// Every function that the patch replaces must have the bytes of the old build.
    func checkOldBytes(_ plan: ApplyPlan, under others: [ApplyPlan]) throws {
        for function in plan.guarded {
            var bytes = try memory.read(at: function.range.lowerBound, count: function.range.upperBound - function.range.lowerBound)
            // Where a patch that makes way has its jumps, the old bytes are known.
            for site in others.flatMap(\.sites)
            where function.range.contains(site.address) && function.range.contains(site.address + (site.old.count - 1)) {
                let at = site.address - function.range.lowerBound
                bytes.replaceSubrange(at..<at + site.old.count, with: site.old)
            }
            guard sha256(bytes[...]) == function.hash else {
                throw Failure(
                    "bytes-differ", "the code in memory is not that of the build: something else has changed it.",
                    at: "process \(process) \(function.name)",
                    remedy: "Another patch, a debugger or a hook may be there; see fother ps --pid \(process).")
            }
        }
    }
}
