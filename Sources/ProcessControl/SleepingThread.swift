// Looks at a thread that sleeps without waking it. A stop wakes it twice, and whoever runs on its processor goes without for that
// time; with a thousand threads that adds up.

import CLinux
import ELF

/// Where a thread slept when it was looked at.
public struct SleepingThread: Sendable, Equatable {
    public var thread: ThreadID
    public var instructionPointer: RuntimeAddress
    public var stackPointer: RuntimeAddress
    /// glibc and musl keep this list's head in the thread's control block, on top of the stack they gave it; nil where there is
    /// none.
    public var robustList: RuntimeAddress?
    /// How often it had been given a processor by then.
    var turns: UInt64
}

extension ProcessHandle {
    /// Nil when it does not sleep, has ended, or the kernel does not tell (CONFIG_SCHED_INFO).
    public func sleeping(_ thread: ThreadID) -> SleepingThread? {
        guard let turns = turns(of: thread), let text = try? read("task/\(thread)/syscall", limitBytes: Limits.statBytes) else {
            return nil
        }
        // "running"; a number and six arguments, or -1; then the stack pointer and the instruction pointer.
        let words = text.split(whereSeparator: { $0 == UInt8(ascii: " ") || $0 == UInt8(ascii: "\n") })
        guard words.count == 3 || words.count == 9, let sp = Self.address(words[words.count - 2]),
            let ip = Self.address(words[words.count - 1])
        else { return nil }
        let list = fother_robust_list(thread.value)
        return SleepingThread(
            thread: thread, instructionPointer: ip, stackPointer: sp, robustList: list > 0 ? RuntimeAddress(UInt64(list)) : nil,
            turns: turns)
    }

    /// Whether it has slept ever since: what was read of its stack in between is of one moment, that of the look.
    public func stillSleeps(_ sleeper: SleepingThread) -> Bool { turns(of: sleeper.thread) == sleeper.turns }

    /// The last field of `schedstat`. A thread that runs has had its turn before it can change anything.
    private func turns(of thread: ThreadID) -> UInt64? {
        guard let text = try? read("task/\(thread)/schedstat", limitBytes: Limits.statBytes),
            let last = text.split(whereSeparator: { $0 == UInt8(ascii: " ") || $0 == UInt8(ascii: "\n") }).last,
            let turns = UInt64(String(decoding: last, as: UTF8.self)), turns > 0
        else { return nil }
        return turns
    }

    private static func address(_ word: ArraySlice<UInt8>) -> RuntimeAddress? {
        guard word.starts(with: [UInt8(ascii: "0"), UInt8(ascii: "x")]) else { return nil }
        return UInt64(String(decoding: word.dropFirst(2), as: UTF8.self), radix: 16).map { RuntimeAddress($0) }
    }
}
