// Carries out one patch in one process, all or nothing. The recipe:
// look -> plan -> check the old bytes -> map and write while it runs -> stop -> check for a safe point -> write sites ->
// read back -> release -> read back. Revert is the same with the bytes exchanged and no mapping.

import ELF
import LivePatch
import ProcessControl

public struct Applier: Sendable {
    let tracer: Tracer
    public var budget: TransitionBudget
    /// Called between any two steps; throwing there abandons the transition as a crash would.
    public var checkpoint: @Sendable (TransitionStep) -> Void

    public init(
        _ tracer: Tracer, budget: TransitionBudget = TransitionBudget(), checkpoint: @escaping @Sendable (TransitionStep) -> Void = { _ in }
    ) {
        self.tracer = tracer
        self.budget = budget
        self.checkpoint = checkpoint
    }

    /// Makes `process` run `patch`.
    public func apply(_ patch: LivePatch, to id: ProcessID, acceptances: [Acceptance] = []) -> ProcessOutcome {
        outcome { try transition(patch, id, acceptances) }
    }

    /// What `apply` would write, without touching the process. Nil outcome fields never occur: either a plan or why not.
    public func plan(_ patch: LivePatch, for id: ProcessID, acceptances: [Acceptance] = []) -> Result<ApplyPlan, Failure> {
        do {
            let target = try Target(patch, id)
            guard let object = try target.object() else {
                return .failure(Failure("not-affected", "the object is not loaded there.", at: "process \(id)"))
            }
            let plan = try prepared(patch, target, object, acceptances)
            try target.checkOldBytes(plan)
            return .success(plan)
        } catch let failure as Failure {
            return .failure(failure)
        } catch {
            return .failure(Failure("unexpected", "\(error)", at: "process \(id)"))
        }
    }

    /// Puts the old code back in `process`.
    public func revert(_ patch: LivePatch, in id: ProcessID) -> ProcessOutcome {
        outcome {
            let target = try Target(patch, id)
            guard let found = target.found else { return .notPatched }
            switch found.state {
            case .retired, .unfinished: return .notPatched
            case .couldNotTell(let failure): return .couldNotTell(failure)
            case .patched, .interrupted:
                guard let plan = found.plan else { return .notPatched }
                return try restore(plan, target)
            }
        }
    }

    private func outcome(_ body: () throws -> ProcessOutcome) -> ProcessOutcome {
        do { return try body() } catch let failure as Failure {
            return failure.saysProcessIsGone ? .gone : failure.saysProcessIsUnreadable ? .couldNotTell(failure) : .refused(failure)
        } catch {
            return .couldNotTell(Failure("unexpected", "\(error)"))
        }
    }

    private func transition(_ patch: LivePatch, _ id: ProcessID, _ acceptances: [Acceptance]) throws -> ProcessOutcome {
        var target = try Target(patch, id)
        guard let object = try target.object() else { return .notAffected }
        switch target.found?.state {
        case .patched: return .alreadyPatched
        case .couldNotTell(let failure): return .couldNotTell(failure)
        case .interrupted:
            // Half-written by somebody who was killed: back to the old code first, then forward from a known state.
            if let plan = target.found?.plan {
                let undone = try restore(plan, target)
                guard undone.isDone else { return undone }
                target = try Target(patch, id)
            }
        case .retired, .unfinished, nil: break
        }
        let plan = try prepared(patch, target, object, acceptances)
        try target.checkOldBytes(plan)

        var stub: Range<RuntimeAddress>?
        if target.found == nil { stub = try map(plan, target) }
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
            let result = try flip(plan, target, forward: true, isReused: isReused, stub: stub)
            if case .patched = result { return result }
            if !isReused { unmap(plan, target) }
            return result
        } catch {
            if !isReused { unmap(plan, target) }
            throw error
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

    private func map(_ plan: ApplyPlan, _ target: Target) throws -> Range<RuntimeAddress> {
        var calls: [SystemCall] = [.mapAnonymous(at: plan.base, bytes: plan.layout.size)]
        func protect(_ division: Range<Int>, _ permissions: Mapping.Permissions) {
            guard !division.isEmpty else { return }
            calls.append(.protect(plan.base + division.lowerBound, bytes: division.count, permissions))
        }
        protect(plan.layout.text, [.read, .execute])
        protect(plan.layout.data, [.read, .write])
        let stub = try tracer.perform(calls, in: target.handle, maps: target.maps)
        checkpoint(.mapped)
        return stub
    }

    private func fill(_ plan: ApplyPlan, _ target: Target) throws {
        try target.memory.write(plan.text, at: plan.newCode.lowerBound)
        try target.memory.write(plan.readOnly, at: plan.base + plan.layout.readOnly.lowerBound)
        try target.memory.write(plan.data, at: plan.base + plan.layout.data.lowerBound)
        guard try target.memory.read(at: plan.newCode.lowerBound, count: plan.text.count) == plan.text,
            try target.memory.read(at: plan.base + plan.layout.readOnly.lowerBound, count: plan.readOnly.count) == plan.readOnly
        else {
            throw Failure("read-back", "the mapped code does not read back as written.", at: "process \(target.process)", remedy: "Nothing was changed.")
        }
    }

    /// Nothing ever ran there, so nothing can point there.
    private func unmap(_ plan: ApplyPlan, _ target: Target) {
        _ = try? tracer.perform([.unmap(plan.base, bytes: plan.layout.size)], in: target.handle, maps: target.maps)
    }

    private func restore(_ plan: ApplyPlan, _ target: Target) throws -> ProcessOutcome {
        try flip(plan, target, forward: false, isReused: true, stub: nil)
    }

    // MARK: While it stands still

    private func flip(_ plan: ApplyPlan, _ target: Target, forward: Bool, isReused: Bool, stub: Range<RuntimeAddress>?) throws -> ProcessOutcome {
        var quiet: [(range: Range<RuntimeAddress>, name: String)]
        if forward {
            quiet = plan.guarded.map { ($0.range, $0.name) }
        } else {
            // The new code and the stubs, and the inside of the jumps, where old instructions will begin again.
            quiet = [(plan.newCode, "patched code")] + plan.sites.map { ($0.window, $0.function) }
        }
        // The stub that mapped the patch has done its work; when nobody is in it any more its bytes go.
        if let stub { quiet.append((stub, "the call that mapped the patch")) }
        let guarded = GuardedRanges(quiet), words = WordReader(target.process)
        let change = SiteSwitch(plan: plan, forward: forward, stub: stub, memory: target.memory, checkpoint: checkpoint)
        let clock = ContinuousClock()
        let deadline = clock.now + budget.timeout
        var attempts = 0
        var last: ProcessOutcome = .blocked([], attempts: 0)
        while attempts < budget.attemptsMax {
            attempts += 1
            // Stacks grow and threads come: the map must be that of this attempt.
            let stacks = StackMap(try target.handle.mappings(), of: target.process)
            do {
                let stop = try tracer.withStopped(target.handle, timeout: budget.stopTimeout) { stopped throws -> [BlockingThread] in
                    let blocking = SafePoint.blocking(stopped, guarded, stacks, words)
                    if blocking.isEmpty { try change.perform() }
                    return blocking
                }
                if stop.value.isEmpty {
                    checkpoint(.released)
                    return try verified(
                        plan, target, forward: forward,
                        TransitionReport(pause: stop.pause, attempts: attempts, mappedBytes: plan.layout.size, isReused: isReused))
                }
                last = .blocked(stop.value, attempts: attempts)
            } catch let failure as Failure where failure.code == "stop-timeout" {
                last = .refused(failure)
            }
            if clock.now >= deadline { break }
            tracer.rest(attempts)
        }
        return last
    }

    /// Reads everything back after the release: only this makes "patched" true.
    private func verified(_ plan: ApplyPlan, _ target: Target, forward: Bool, _ report: TransitionReport) throws -> ProcessOutcome {
        let after = try Target(target.patch, target.process)
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

    init(_ patch: LivePatch, _ id: ProcessID) throws {
        self.patch = patch
        process = id
        handle = try ProcessHandle(id)
        memory = try handle.memory()
        maps = try handle.mappings()
        objects = Instances.objects(in: maps, of: memory)
        found = PatchStates.find(in: maps, of: memory, objects: objects) { $0 == patch.id ? patch : nil }.first { $0.header?.patch == patch.id }
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
    func checkOldBytes(_ plan: ApplyPlan) throws {
        for function in plan.guarded {
            let bytes = try memory.read(at: function.range.lowerBound, count: function.range.upperBound - function.range.lowerBound)
            guard sha256(bytes[...]) == function.hash else {
                throw Failure(
                    "bytes-differ", "the code in memory is not that of the build: something else has changed it.",
                    at: "process \(process) \(function.name)", remedy: "Another patch, a debugger or a hook may be there; see fother ps --pid \(process).")
            }
        }
    }
}
