// After a switch call by call: watches the threads until each has been seen once outside the code that was switched away
// from. One that sleeps is left asleep; any other is stopped for it, one at a time, for as long as it takes to read its stack.

import ELF
import LivePatch
import ProcessControl

extension Applier {
    /// Threads that are still in it when the budget is used up. When there are none and the patch is on, writes that down in
    /// the process. A thread that was seen outside once cannot come back: every way in leads to the other code.
    func settle(_ plan: ApplyPlan, on: Bool, _ target: Target) -> [BlockingThread] {
        let stubs = plan.base + plan.layout.stubs..<plan.newCode.upperBound
        let code: [(range: Range<RuntimeAddress>, name: String)] =
            on
            ? plan.guarded.map { ($0.range, $0.name) } + [(stubs, "a patch site")]
            : [(plan.newCode, "patched code")]
        let guarded = GuardedRanges(code), words = WordReader(target.memory)
        let walker = StackWalker(target, tables, plan)
        let deadline = ContinuousClock.now + budget.settling
        while true {
            let inside = seenOutside(guarded, target, words, walker, until: deadline)
            if !inside.isEmpty { return inside }
            guard let coroutine = suspended(guarded, words, walker, plan, target) else { break }
            guard ContinuousClock.now < deadline else { return coroutine }
            tracer.rest(3)
        }
        if on { try? target.memory.write([1], at: plan.effective) }
        return []
    }

    /// Looks at one thread after the other until each, new ones too, was seen once outside the guarded code, which nobody enters any
    /// more. Returns those that were not by then; empty also when the process has ended.
    func seenOutside(
        _ guarded: GuardedRanges, _ target: Target, _ words: WordReader, _ walker: StackWalker, until deadline: ContinuousClock.Instant
    ) -> [BlockingThread] {
        var seen: Set<ThreadID> = []
        var round = 0
        while true {
            round += 1
            var blocking: [BlockingThread] = []
            guard let threads = try? target.handle.threads(), let maps = try? target.handle.mappings() else {
                // Who has ended is in nothing any more; of anybody else it is not known.
                return target.handle.isAlive ? [unseen(ThreadID(target.process.value))] : []
            }
            let stacks = StackMap(maps, of: target.process)
            let left = threads.filter { !seen.contains($0) }
            if left.isEmpty { return [] }
            for thread in left {
                if SafePoint.sleepsOutside(thread, target.handle, guarded, stacks, words) {
                    seen.insert(thread)
                    continue
                }
                do {
                    let found = try SafePoint.blocking(
                        thread, target, guarded, stacks, words, walker, tracer, within: budget.pause)
                    if let found { blocking.append(found) } else { seen.insert(thread) }
                } catch {
                    // One that has ended is outside; of any other it is not known.
                    guard let status = try? target.handle.status(of: thread), !status.isEnded else {
                        seen.insert(thread)
                        continue
                    }
                    blocking.append(unseen(thread))
                }
            }
            // New ones may have come in the meantime: once more, until all are seen.
            if ContinuousClock.now >= deadline, !blocking.isEmpty { return blocking }
            if !blocking.isEmpty { tracer.rest(round) }
        }
    }

    private func unseen(_ thread: ThreadID) -> BlockingThread {
        BlockingThread(thread: thread, function: "code that could not be looked at", isExecuting: true)
    }

    /// What a suspended coroutine is still in, where there may be any: one stop of all threads tells. Nil when there is none.
    private func suspended(
        _ guarded: GuardedRanges, _ words: WordReader, _ walker: StackWalker, _ plan: ApplyPlan, _ target: Target
    ) -> [BlockingThread]? {
        guard let reason = switchers.reason(in: target.objects, target.memory) else { return nil }
        let search = CoroutineSearch(reason: reason, guarded: guarded, target, words, patch: plan)
        do {
            if let found = try search.blockingBeforeStop() { return [found] }
            return try tracer.withStopped(target.handle, timeout: budget.pause) { stopped throws -> [BlockingThread]? in
                let stacks = StackMap(try target.handle.mappings(), of: target.process)
                let threads = SafePoint.blocking(stopped, guarded, stacks, words, walker)
                if !threads.isEmpty { return threads }
                return try search.blocking(stopped.threads, stacks).map { [$0] }
            }.value
        } catch {
            let id = ThreadID(target.process.value)
            return [BlockingThread(thread: id, function: "a coroutine that could not be looked for", isExecuting: true)]
        }
    }

    /// Looks again at a patch that is on and was not in full effect when it was last looked at. Nil when it is not on, or
    /// its process cannot be looked at.
    public func finishing(_ patch: LivePatch, in id: ProcessID) -> [BlockingThread]? {
        guard let handle = try? ProcessHandle(id), (try? handle.claim(patience: .zero)) != nil,
            let copies = try? Target(patch, id, held).copies
        else { return nil }
        return withExtendedLifetime(handle) {
            var result: [BlockingThread]?
            for bias in copies {
                guard let target = try? Target(patch, id, bias: bias, held), case .patched? = target.found?.state,
                    let found = target.found, let plan = found.plan
                else { continue }
                result = (result ?? []) + (found.header?.isEffective == true ? [] : settle(plan, on: true, target))
            }
            return result
        }
    }
}
