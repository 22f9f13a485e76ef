// What apply and revert say about each process: one table, one JSON, one exit code.

import ELF
import LivePatch
import LivePatchApplier
import ProcessControl

struct TransitionLine: Encodable {
    var pid: Int32
    var program: String
    /// patched, already-patched, reverted, not-patched, refused, blocked, could-not-tell, gone.
    var outcome: String
    var pauseMicroseconds: Double?
    var attempts: Int?
    var mappedBytes: Int?
    /// Of patched processes: memory that this one does not share because of the patch, at most.
    var residentBytes: Int?
    /// Of those mapped, bytes that are pages of a file and the same for all processes.
    var sharedBytes: Int?
    /// Of patched processes: file, if any bytes are shared; else anonymous.
    var codeMemory: String?
    /// Why nothing is shared, if that was tried.
    var notShared: String?
    /// Copies of the object in this process that were switched, if there are several.
    var copies: Int?
    var replaced: [String]?
    /// After revert --unmap: unmapped, or why the memory was kept.
    var memory: String?
    var blocking: [String]?
    /// Threads that are still in a call of the code that was switched away from.
    var finishing: [String]?
    /// Whether the process can unwind through the patch: registered, no-unwinder, not-registered.
    var frames: String?
    var failure: FailureValue?

    init(_ pid: ProcessID, _ program: String, _ outcome: ProcessOutcome) {
        self.pid = pid.value
        self.program = program
        switch outcome {
        case .patched(let r):
            self.outcome = "patched"
            set(r)
        case .reverted(let r):
            self.outcome = "reverted"
            set(r)
        case .alreadyPatched: self.outcome = "already-patched"
        case .notPatched: self.outcome = "not-patched"
        case .notAffected: self.outcome = "not-affected"
        case .gone: self.outcome = "gone"
        case .refused(let f):
            self.outcome = "refused"
            failure = FailureValue(f)
        case .couldNotTell(let f):
            self.outcome = "could-not-tell"
            failure = FailureValue(f)
        case .blocked(let threads, let attempts):
            self.outcome = "blocked"
            self.attempts = attempts
            blocking = threads.map(\.text)
        }
    }

    init(_ pid: ProcessID, unreadable failure: Failure) {
        self.pid = pid.value
        program = "?"
        outcome = "could-not-tell"
        self.failure = FailureValue(failure)
    }

    private mutating func set(_ r: TransitionReport) {
        pauseMicroseconds = Self.microseconds(r.pause)
        attempts = r.attempts
        frames = r.frames?.word
        if case .notRegistered(let f)? = r.frames { failure = FailureValue(f) }
        mappedBytes = r.mappedBytes
        finishing = r.finishing.isEmpty ? nil : r.finishing.map(\.text)
        if r.residentBytes > 0 {
            residentBytes = r.residentBytes
            sharedBytes = r.sharedBytes
            codeMemory = r.sharedBytes > 0 ? "file" : "anonymous"
            notShared = r.notShared?.sentence
        }
        copies = r.copies > 1 ? r.copies : nil
        replaced = r.replaced.isEmpty ? nil : r.replaced.map(\.description)
        switch r.memory {
        case .kept(nil): break
        case .kept(let failure?): memory = "kept: \(failure.sentence)"
        case .unmapped(let pause):
            memory = "unmapped"
            mappedBytes = 0
            pauseMicroseconds = max(pauseMicroseconds ?? 0, Self.microseconds(pause))
        }
    }

    private static func microseconds(_ d: Duration) -> Double {
        (Double(d.components.attoseconds) / 1e12 + Double(d.components.seconds) * 1e6).rounded()
    }

    var text: (word: Table.Cell, detail: String) {
        switch outcome {
        case "patched", "reverted":
            let instead = replaced.map { "; replaces patch " + $0.map { String($0.prefix(12)) }.joined(separator: ", ") } ?? ""
            let stops = attempts.map { $0 == 1 ? "" : ", \($0) stops" } ?? ""
            var parts = [
                pauseMicroseconds ?? 0 > 0
                    ? "read back; stood still for \(Int(pauseMicroseconds ?? 0)) us\(stops)" : "read back; never stood still"
            ]
            let shared = sharedBytes.map { $0 > 0 ? ", \($0 / 1024) of it shared" : "" } ?? ""
            parts.append("\((mappedBytes ?? 0) / 1024) KiB mapped\(shared)\(instead)")
            if let copies { parts.append("\(copies) copies of the object at one moment") }
            if let memory { parts.append("memory \(memory)") }
            if frames == "not-registered" { parts.append("its unwinder does not know the patch: \(sentence)") }
            if let finishing {
                let more = finishing.count > 3 ? " and \(finishing.count - 3) more" : ""
                parts.append("for new calls: " + finishing.prefix(3).joined(separator: ", ") + more)
            }
            let word: Table.Cell = finishing == nil ? .init(outcome, Theme.good) : .init(outcome, Theme.review)
            return (word, parts.joined(separator: "; "))
        case "already-patched": return (.init("already patched", Theme.good), "read back; nothing was done")
        case "not-patched": return (.init("not patched", Theme.quiet), "nothing was done")
        case "not-affected": return (.init("not affected", Theme.quiet), "the build is not loaded")
        case "gone": return (.init("gone", Theme.quiet), "the process ended")
        case "blocked":
            return (
                .init("declined", Theme.review),
                "no safe moment in \(attempts ?? 0) stops: \((blocking ?? []).prefix(3).joined(separator: ", ")); nothing was changed"
            )
        case "could-not-tell": return (.init("could not tell", Theme.review), sentence)
        default: return (.init("refused", Theme.exposed), sentence)
        }
    }

    private var sentence: String { failure.map { "\($0.sentence) \($0.remedy) [\($0.code)]" } ?? "" }
}

struct TransitionResult: Encodable {
    var schema: String
    var id: String
    var buildID: String
    var accepted: [Acceptance]
    var processes: [TransitionLine]

    /// 0 only if every process is as asked. While a thread is in old code that was patched, vulnerable code runs; while one is in
    /// new code that was reverted, there is nothing for anybody to do: its call ends, and every other one runs the old code.
    var exit: Int32 {
        if processes.contains(where: { $0.outcome == "could-not-tell" }) { return Exit.couldNotTell }
        if processes.contains(where: {
            $0.outcome == "refused" || $0.outcome == "blocked" || $0.outcome == "patched" && $0.finishing != nil
        }) {
            return Exit.actionNeeded
        }
        return Exit.done
    }

    func show(_ none: String) {
        guard !processes.isEmpty else {
            Output.line(none)
            return
        }
        var table = Table("PID", "PROGRAM", "RESULT", "")
        for p in processes {
            let (word, detail) = p.text
            table.add(.init("\(p.pid)"), .init(p.program), word, .init(detail))
        }
        table.print()
    }
}

extension BlockingThread {
    /// "thread 12 runs f", "thread 12 will return into f and waits in read".
    var text: String {
        if let coroutineIn { return "a coroutine suspended in \(coroutineIn) will return into \(function)" }
        return "thread \(thread) \(isExecuting ? "runs" : "will return into") \(function)\(waitsIn.map { " and waits in \($0)" } ?? "")"
    }
}

extension ProcessView {
    /// The program's file name, for people.
    var name: String { program.flatMap { $0.split(separator: "/").last.map(String.init) } ?? status.name }
}
