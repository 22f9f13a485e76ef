// A running process that is about to be patched, and answers questions about itself.

import ELF
import Foundation
import LivePatch
import LivePatchApplier
import ProcessControl
import Testing

/// Ended, whatever happens, when the last reference goes.
final class Victim: Sendable {
    let fixture: Fixture
    let child: ChildProcess
    let handle: ProcessHandle
    var id: ProcessID { child.id }
    var patch: LivePatch { fixture.patch }

    /// Starts it and waits until it has prepared itself as `arguments` say: see Fixtures/targets/victim.c.
    convenience init(_ arguments: String..., isStatic: Bool = false) throws { try self.init(arguments: arguments, isStatic: isStatic) }
    convenience init(arguments: [String], isStatic: Bool = false) throws {
        let fixture = try Fixture.get()
        try self.init(command: [isStatic ? fixture.staticProgram : fixture.program] + arguments)
    }
    /// Another program of Fixtures/targets, `name` its source file.
    convenience init(_ name: String, flags: [String] = [], _ arguments: [String]) throws {
        try self.init(command: [Fixture.get().other(name, flags)] + arguments)
    }
    init(command: [String]) throws {
        fixture = try Fixture.get()
        child = try ChildProcess(command, input: .pipe, output: .pipe)
        let first = try child.readLine()
        if first == "unsupported" { throw Unsupported() }
        guard first == "ready" else { throw Failure("fixture", "the victim said \(first ?? "nothing") instead of ready.") }
        handle = try ProcessHandle(child.id)
    }

    /// The kernel lacks what the test is about.
    struct Unsupported: Error {}

    func ask(_ question: String) throws -> String {
        try child.write(question + "\n")
        guard let answer = try child.readLine() else {
            throw Failure("victim-died", "\(try child.wait(timeout: .seconds(5)))", at: question)
        }
        return answer
    }

    /// Whether it runs the old code; the failure `half-patched` when it runs both.
    var isVulnerable: Bool {
        get throws {
            let answers = (try ask("verdict 5"), try ask("verdict 200"), try ask("greet"))
            #expect(answers.0 == "16", "what the fix does not touch goes on working")
            switch (answers.1, answers.2) {
            case ("601", "greetings from the old build"): return true
            case ("-1", "greetings from the fixed build"): return false
            default: throw Failure("half-patched", "the victim answers \(answers.1) and \(answers.2).")
            }
        }
    }

    /// How often the blocking call has returned, the last error it returned, and signals seen.
    var blocked: (returns: Int, error: Int32, signals: Int) {
        get throws {
            let words = try ask("blocked").split(separator: " ").compactMap { Int($0) }
            return (words[0], Int32(words[1]), words[2])
        }
    }

    /// The thread in the blocking call `--block` named: the second one.
    var blockedThread: ThreadID {
        get throws {
            let thread = try #require(try handle.threads().first { $0.value != id.value })
            while true {
                if case .inSystemCall = try handle.activity(of: thread) { return thread }
                usleep(500)
            }
        }
    }

    /// No thread under load ever saw a wrong result, and load goes on.
    func expectHealthyLoad() throws {
        func load() throws -> (calls: Int, bad: Int) {
            let words = try ask("load").split(separator: " ").compactMap { Int($0) }
            return (words[0], words[1])
        }
        let before = try load()
        var after = before
        while after.calls == before.calls { after = try load() }
        #expect(after.bad == 0)
    }

    /// What it counts by itself: done, wrong, and whatever else.
    var load: [Int] {
        get throws { try ask("load").split(separator: " ").compactMap { Int($0) } }
    }

    func wait(until condition: () throws -> Bool) throws {
        let deadline = ContinuousClock.now + .seconds(20)
        while try !condition() {
            guard ContinuousClock.now < deadline else { throw Failure("fixture", "it did not happen within 20 s.") }
            usleep(500)
        }
    }

    /// What `ps` says about the patch in it.
    var state: String {
        get throws {
            let found = try ProcessView(id) { $0 == self.patch.id ? self.patch : nil }.patches
            switch found.first?.state {
            case nil: return "none"
            case .patched: return "patched"
            case .retired: return "retired"
            case .unfinished: return "unfinished"
            case .orphaned: return "orphaned"
            case .interrupted: return "interrupted"
            case .couldNotTell(let failure): return failure.code
            }
        }
    }
}

extension ProcessOutcome {
    /// In one word, for expectations.
    var word: String {
        switch self {
        case .patched: "patched"
        case .alreadyPatched: "already patched"
        case .reverted: "reverted"
        case .notPatched: "not patched"
        case .notAffected: "not affected"
        case .refused(let f): f.code
        case .blocked(let threads, _): "blocked by \(threads.map(\.function))"
        case .couldNotTell(let f): "could not tell: \(f.code)"
        case .gone: "gone"
        }
    }
}
