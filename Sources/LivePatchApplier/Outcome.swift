// What applying or reverting did to one process, in values that can be printed and counted.

import ELF
import LivePatch
import ProcessControl

/// What was done, measured.
public struct TransitionReport: Sendable {
    /// Longest time that all threads of the process stood still at once: from the first interruption to the last release.
    /// Zero where they never did.
    public var pause: Duration
    /// Stops that were needed to find a safe point.
    public var attempts: Int
    /// Bytes of the patch's mapping in the process.
    public var mappedBytes: Int
    /// The mapping existed from before and was used again.
    public var isReused: Bool
    /// Patches that made way in the same stop.
    public var replaced: [PatchID]
    /// How many copies of the object, loaded in this process, were switched: all at one moment.
    public var copies = 1
    /// Of interest after revert.
    public var memory = PatchMemory.kept(nil)
    /// Threads that were in the code that was switched away from and have not been seen outside it yet: their calls end as
    /// they began. Empty: the transition is in full effect.
    public var finishing: [BlockingThread] = []
    /// Whether the process can unwind through the patch. Nil where the patch has no unwind data, and after revert.
    public var frames: FrameState?
    /// Memory that the process does not share with others because of the patch, at most: its mapping, and the pages of
    /// code that a jump, or the call that mapped it, was written to. 0 after revert.
    public var residentBytes = 0
    /// Bytes of the mapping that are pages of a file, and the same for all processes that map it.
    public var sharedBytes = 0
    /// Why there are none, if somebody should know.
    public var notShared: Failure?

    public init(pause: Duration, attempts: Int, mappedBytes: Int, isReused: Bool, replaced: [PatchID] = []) {
        self.pause = pause
        self.attempts = attempts
        self.mappedBytes = mappedBytes
        self.isReused = isReused
        self.replaced = replaced
    }
}

/// What became of a reverted patch's memory.
public enum PatchMemory: Sendable {
    /// It stays, and is used again; the failure says why, if it was asked for otherwise.
    case kept(Failure?)
    /// Nothing points there any more, and it is unmapped.
    case unmapped(pause: Duration)
}

public enum ProcessOutcome: Sendable {
    /// Every site and all of the code were read back after the release.
    case patched(TransitionReport)
    case alreadyPatched
    /// The old bytes were read back after the release; the memory stays.
    case reverted(TransitionReport)
    /// There was nothing to revert.
    case notPatched
    /// The object is not loaded there.
    case notAffected
    /// Nothing was changed, and why.
    case refused(Failure)
    /// No thread-safe moment came within the budget; nothing was changed.
    case blocked([BlockingThread], attempts: Int)
    case couldNotTell(Failure)
    case gone

    /// True for outcomes that leave the process as asked.
    public var isDone: Bool {
        switch self {
        case .patched, .alreadyPatched, .reverted, .notPatched, .notAffected, .gone: true
        case .refused, .blocked, .couldNotTell: false
        }
    }
}

/// How hard to try.
public struct TransitionBudget: Sendable {
    /// Stops after which it gives up.
    public var attemptsMax: Int
    /// Time after which it gives up.
    public var timeout: Duration
    /// Longest time that one stop may take before everything is let go again.
    public var pause: Duration
    /// Stops after which a patch whose functions may switch call by call does so; the threads in the way finish old code.
    public var togetherAttemptsMax = 25
    /// How long to watch threads finish old code before saying that they have not.
    public var settling: Duration = .seconds(2)
    /// All functions switch together, even if the patch allows otherwise.
    public var mustSwitchTogether = false

    public init(attemptsMax: Int = 500, timeout: Duration = .seconds(10), pause: Duration = .milliseconds(500)) {
        self.attemptsMax = attemptsMax
        self.timeout = timeout
        self.pause = pause
    }
}

extension TransitionBudget {
    /// Look once and do not wait for anybody.
    public static var oneLook: TransitionBudget {
        var budget = TransitionBudget()
        budget.settling = .zero
        return budget
    }
}

/// How the jumps get into a running process.
public enum TransitionPath: Sendable {
    /// By the number of threads and by what the patch allows.
    case automatic
    /// All threads stand still while the sites are written.
    case stopAll
    /// Pages with the jumps in them are prepared and put in place of the object's, and nobody stands still but the one
    /// thread that is borrowed for it. Where that is not possible the reason is the outcome.
    case pageSwap
}

/// The steps between which a kill must be harmless; tests end the applier at each.
public enum TransitionStep: Sendable, Hashable {
    case mapped, written, registered, stopped, siteWritten(Int), committed, released
    /// Of the path without a stop of all threads.
    case spareMapped, spareWritten, swapped
    /// The kernel put some pages in place and refused the next.
    case swappedInPart
}
