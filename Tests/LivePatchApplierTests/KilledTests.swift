// Fother is killed at every step of a transition: the target lives, runs the old code or the new one and never a mixture,
// and whoever comes next settles what was left.

import ELF
import Foundation
import LivePatch
import LivePatchApplier
import ProcessControl
import Testing

/// What the child process of an exit test needs; it is a new process and shares nothing.
private func carryOut(_ path: String, _ pid: Int32, apply: Bool, swap: Bool, dieAt word: String) throws {
    let patch = try LivePatch(parsing: RegularFile.read(path), name: path)
    var applier = Applier(Tracer(), checkpoint: { if "\($0)" == word { kill(getpid(), SIGKILL) } })
    applier.path = swap ? .pageSwap : .stopAll
    let outcome = apply ? applier.apply(patch, to: ProcessID(pid)) : applier.revert(patch, in: ProcessID(pid))
    FileHandle.standardError.write(Data("not killed: \(outcome)\n".utf8))
    exit(3)
}

@Suite(.serialized, .enabled(if: geteuid() == 0, "patching other processes needs root"))
struct KilledTests {
    let toy: Toy
    let applier = Applier(Tracer())

    init() throws { toy = try Toy() }

    /// Answers of the patched functions, which must all be of one version.
    private func version(_ victim: Victim) throws -> String {
        let answers = try [victim.ask("call 1"), victim.ask("say 5000"), victim.ask("say 5")]
        switch answers {
        case ["42", "too many", "the old version"]: return "old"
        case ["43", "far too many, says the fixed version", "the fixed version"]: return "new"
        default: return "a mixture: \(answers)"
        }
    }

    private func settle(_ victim: Victim, _ step: String) throws {
        // Nothing of ours holds the target: its threads run.
        #expect(try ProcessHandle(victim.id).status().tracer == nil)
        let found = try version(victim), state = try toy.state(of: victim.id)
        #expect(found == (state == "patched" ? "new" : "old"), "\(step): \(state)")
        #expect(["patched", "interrupted", "retired", "unfinished", "none"].contains(state), "\(step): \(state)")
        #expect(["patched", "already patched"].contains(applier.apply(toy.patch, to: victim.id).word), "\(step)")
        #expect(try version(victim) == "new", "\(step)")
        #expect(applier.revert(toy.patch, in: victim.id).word == "reverted", "\(step)")
        #expect(try version(victim) == "old", "\(step)")
        let mappings = try ProcessView(victim.id, held: { _ in toy.patch }).patches.count
        #expect(mappings == 1, "\(step): \(mappings) mappings")
    }

    private static let steps = ["mapped", "written"].map { ($0, false) } + switching(sites: 3)
    private static func switching(sites: Int) -> [(String, Bool)] {
        (["stopped", "committed", "released"] + (0..<sites).map { "siteWritten(\($0))" }).map { ($0, false) }
            + ["spareMapped", "spareWritten", "swapped", "committed"].map { ($0, true) }
    }

    @Test("killed at any step of an apply, by either path", arguments: Self.steps)
    func apply(step: String, swap: Bool) async throws {
        let victim = try toy.start()
        #expect(try victim.ask("threads 3") == "started")
        await #expect(processExitsWith: .signal(SIGKILL)) {
            [path = toy.patchPath as String, pid = victim.id.value as Int32, step = step as String, swap = swap as Bool] in
            try carryOut(path, pid, apply: true, swap: swap, dieAt: step)
        }
        try settle(victim, step)
        #expect(try victim.ask("counts").hasSuffix(" 0"))
    }

    @Test("killed at any step of a revert, by either path", arguments: switching(sites: 3))
    func revert(step: String, swap: Bool) async throws {
        let victim = try toy.start()
        #expect(try victim.ask("threads 3") == "started")
        #expect(applier.apply(toy.patch, to: victim.id).word == "patched")
        await #expect(processExitsWith: .signal(SIGKILL)) {
            [path = toy.patchPath as String, pid = victim.id.value as Int32, step = step as String, swap = swap as Bool] in
            try carryOut(path, pid, apply: false, swap: swap, dieAt: step)
        }
        try settle(victim, step)
        #expect(try victim.ask("counts").hasSuffix(" 0"))
    }
}
