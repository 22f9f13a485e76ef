// The switch at a safe point: every thread stands still, none is in the way, and the sites are written.

import ELF
import LivePatch
import ProcessControl

/// What became of a switch.
enum Flip {
    case switched(pause: Duration, attempts: Int, finishing: [BlockingThread])
    /// No byte of the process's code was changed, and why.
    case untouched(ProcessOutcome)
    /// Something failed after the switch, so that it is in force and was not seen to be.
    case unknown(Failure)
}

extension Applier {
    /// Whoever else runs in the same memory would not be stopped with the process: mostly a child on its way to an exec.
    func awaitOwnMemory(_ process: ProcessHandle, until deadline: ContinuousClock.Instant) throws {
        var attempts = 0
        while let other = try memoryGroups.sharing(with: process).first {
            guard ContinuousClock.now < deadline else {
                throw Failure(
                    "memory-shared", "process \(other) runs in the same memory, and is not stopped with it.", at: "\(process)",
                    remedy: "Try again when that process has ended or runs its own program.")
            }
            attempts += 1
            tracer.rest(attempts)
        }
    }

    /// What must be quiet for a switch. `together`: nobody may be in the code that is switched away from. Otherwise only the
    /// bytes that change count: calls end as they began.
    private func guarded(off: [ApplyPlan], on: [ApplyPlan], together: Bool, _ rooms: [Range<RuntimeAddress>]) -> GuardedRanges {
        var quiet: [(range: Range<RuntimeAddress>, name: String)] = []
        // The inside of the jumps, where old instructions begin, or will begin again.
        for plan in off + on { quiet += plan.sites.map { ($0.window, $0.function) } }
        if together {
            quiet += on.flatMap(\.guarded).map { ($0.range, $0.name) }
            quiet += off.map { ($0.newCode, "patched code") }
        }
        quiet += rooms.map { ($0, "a call that another fother started") }
        return GuardedRanges(quiet)
    }

    /// Makes the pages of the jumps the process's own, byte for byte what they are: else the kernel would copy them during the stop.
    private func unshare(_ plan: ApplyPlan, _ target: Target) {
        var pages: Set<UInt64> = []
        for site in plan.sites where pages.insert(site.address.value / UInt64(PatchLayout.page)).inserted {
            guard let bytes = try? target.memory.read(at: site.address, count: site.new.count), site.vacant.contains(bytes) else {
                continue
            }
            try? target.memory.write(bytes, at: site.address)
        }
    }

    /// Waits for a safe point, as long as the budget allows, and switches there.
    func flip(off: [ApplyPlan], on: [ApplyPlan], _ target: Target) -> Flip {
        // Where an older patch makes way, both must be out of the way of each other; copies of one object switch together.
        let mayPart = !budget.mustSwitchTogether && off.count + on.count == 1 && (off + on)[0].consistency.mode == .perCall
        let words = WordReader(target.memory)
        let clock = ContinuousClock()
        let deadline = clock.now + budget.timeout
        // A call that a killed predecessor started may still be on its way to the memory of the patch.
        let rooms: [Range<RuntimeAddress>]
        do { rooms = try CallRoom.occupied(in: target.maps, of: target.memory) } catch {
            return .untouched(error.saysProcessIsGone ? .gone : .refused(error))
        }
        var quiet = guarded(off: off, on: on, together: true, rooms)
        let switches = switchers.reason(in: target.objects, target.memory)
        for plan in on { unshare(plan, target) }
        var isTogether = true
        var attempts = 0
        var last: ProcessOutcome = .blocked([], attempts: 0)
        // Unwind data is read only when somebody seems to block: most often nobody does.
        var walker: StackWalker?
        while attempts < budget.attemptsMax {
            attempts += 1
            if isTogether, mayPart, attempts > budget.togetherAttemptsMax {
                isTogether = false
                quiet = guarded(off: off, on: on, together: false, rooms)
            }
            let change = SiteSwitch(off: off, on: on, memory: target.memory, checkpoint: checkpoint)
            var isSwitched = false
            do {
                try awaitOwnMemory(target.handle, until: deadline)
                let coroutines = CoroutineSearch(reason: switches, guarded: quiet, target, words, patch: on.first ?? off.first)
                if let coroutine = try coroutines.blockingBeforeStop() {
                    last = .blocked([coroutine], attempts: attempts)
                    if clock.now >= deadline { break }
                    tracer.rest(attempts)
                    continue
                }
                // Stacks grow and threads come: the map must be that of this attempt.
                let stacks = StackMap(try target.handle.mappings(), of: target.process)
                let scan = StackScan(quiet, stacks, walker, target.memory)
                let isLarge = try usesSecondProcessor && target.handle.threads().count >= StackScan.threadsMin
                let helper: (@Sendable () -> Void)? = isLarge ? { @Sendable in scan.help() } : nil
                let stop = try tracer.withStopped(
                    target.handle, timeout: budget.pause, helper: helper, closing: { scan.abandon() },
                    observer: { thread in
                        // Others are still coming to a stop meanwhile.
                        if isLarge { scan.add(thread) } else { scan.lookAt(thread, words) }
                    }
                ) { stopped throws -> [BlockingThread] in
                    var blocking = scan.finish(words)
                    if blocking.isEmpty, let coroutine = try coroutines.blocking(stopped.threads, stacks) { blocking = [coroutine] }
                    if blocking.isEmpty {
                        guard stopped.elapsed < budget.pause else {
                            throw Failure(
                                "pause-exceeded", "it would have stood still for longer than \(budget.pause).", at: "\(target.handle)",
                                remedy: "Allow more with --pause-budget.")
                        }
                        try change.perform()
                        isSwitched = true
                        // Nobody is in there, so nobody will be.
                        CallRoom.clear(rooms, of: target.memory)
                    }
                    return blocking
                }
                if isSwitched {
                    // No thread was in old code, and none can come back to it.
                    if isTogether { for plan in on { try? target.memory.write([1], at: plan.effective) } }
                    checkpoint(.released)
                    let finishing = isTogether ? [] : (on + off).first.map { settle($0, on: !on.isEmpty, target) } ?? []
                    return .switched(pause: stop.pause, attempts: attempts, finishing: finishing)
                }
                last = .blocked(stop.value, attempts: attempts)
                if walker == nil { walker = StackWalker(target, tables) }
            } catch {
                let failure = error as? Failure ?? Failure("unexpected", "\(error)", at: "process \(target.process)")
                if isSwitched { return .unknown(failure) }
                if failure.saysProcessIsGone { return .untouched(.gone) }
                last = .refused(failure)
                guard failure.code == "stop-timeout" || failure.code == "pause-exceeded" else { return .untouched(last) }
            }
            if clock.now >= deadline { break }
            tracer.rest(attempts)
        }
        return .untouched(last)
    }
}
