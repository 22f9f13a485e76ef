// `fother demo`: a service with a hole, attacked, patched while it runs, attacked again, and put back. Every step is
// checked; the first that does not do what it says ends the demonstration with a failure.

import ArgumentParser
import ELF
import Foundation
import LivePatch
import LivePatchApplier
import LivePatchBuilder
import ProcessControl

struct DemoCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "demo", abstract: "Watch a running service being attacked, patched without a restart, and attacked again.")

    func run() throws {
        try Program.run { try tell() }
    }

    private func tell() throws -> Int32 {
        let story = Story()
        let start = ContinuousClock.now
        story.title("fother demo", "a hole in a running service is closed, and nobody notices but the attacker")
        let service = try DemoService()
        defer { service.remove() }
        story.step("build", "a service, and its library in two versions, stripped as distributions do")
        try service.start()
        story.step("start", "guestbook, process \(service.serverID)")
        story.step("visit", "alice signs in, leaves a private note, and keeps her session open")

        try attack(service, story, leaks: true, "anyone can read alice's note")

        let patch = try derive(service, story)
        let applier = Applier(Tracer())
        _ = try service.longestGap()
        guard case .patched(let report) = applier.apply(patch, to: service.serverID) else {
            throw failed("the patch was not applied: \(applier.apply(patch, to: service.serverID))")
        }
        let gap = try service.longestGap()
        story.step("apply", "process \(service.serverID) patched and read back; files untouched, nothing restarted")
        story.detail("it stood still for \(time(report.pause)); the longest gap its own clock saw was \(time(gap))")

        try attack(service, story, leaks: false, "the hole is closed")
        try visit(service, story)

        guard case .reverted = applier.revert(patch, in: service.serverID) else { throw failed("the patch was not reverted") }
        story.step("revert", "the old code is back")
        try attack(service, story, leaks: true, "open again: it was the patch that closed it")
        try visit(service, story)
        story.end("Done in \(time(ContinuousClock.now - start)). Everything was stopped and removed.")
        return Exit.done
    }

    private func attack(_ service: DemoService, _ story: Story, leaks: Bool, _ moral: String) throws {
        let answer = try service.ask(DemoService.attack)
        story.step("attack", DemoService.attack)
        story.quote(answer)
        guard answer.contains(DemoService.secret) == leaks, leaks || answer.hasPrefix("ERR ") else {
            throw failed("the attack's answer is not what this step is about: \(answer)")
        }
        story.moral(moral, isGood: !leaks)
    }

    private func derive(_ service: DemoService, _ story: Story) throws -> LivePatch {
        var context = BuildContext(object: DemoService.library, package: "guestbook")
        context.oldDebug = try service.debug("old")
        context.newDebug = try service.debug("new")
        let result = try build(old: service.build("old"), new: service.build("new"), context)
        let manifest = result.manifest, counts = result.statistics
        guard case .patch(let bytes) = result.outcome, manifest.verdict == .pass else {
            throw failed("no patch could be derived: \(manifest.findings.map(\.sentence).joined(separator: " "))")
        }
        let patch = try LivePatch(parsing: bytes, name: "demo.fother")
        story.step("derive", "a patch from the two stripped builds, \(manifest.buildID.prefix(8)) to \(manifest.newBuildID.prefix(8))")
        story.detail("\(counts.newFunctions) functions: \(counts.same) the same, \(counts.changed) changed, \(counts.added) added")
        story.detail("their debug files agree: what is in memory keeps its layout")
        story.detail(
            "\(manifest.references.values.reduce(0, +)) references proved; verdict \(manifest.verdict.rawValue); \(bytes.count) bytes, id \(patch.id.short)"
        )
        return patch
    }

    private func visit(_ service: DemoService, _ story: Story) throws {
        let (requests, errors) = try service.aliceCounts()
        let interruptions = try service.interruptions()
        guard errors == 0, interruptions == 0 else {
            throw failed("alice saw \(errors) errors, the service \(interruptions) interrupted waits")
        }
        story.step("alice", "\(requests) requests in her one session, no error; the service's waits were never interrupted")
    }

    private func failed(_ what: String) -> Failure { Failure("demo-failed", what + ".", at: "demo") }

    /// Three significant digits in the unit that people would choose.
    private func time(_ d: Duration) -> String {
        let us = Double(d.components.seconds) * 1e6 + Double(d.components.attoseconds) / 1e12
        let (value, unit) = us < 1000 ? (us, "us") : us < 1e6 ? (us / 1000, "ms") : (us / 1e6, "s")
        let digits = value < 10 ? 2 : value < 100 ? 1 : 0
        var scale = 1.0
        for _ in 0..<digits { scale *= 10 }
        let rounded = (value * scale).rounded() / scale
        return (digits == 0 ? "\(Int(rounded))" : "\(rounded)") + " " + unit
    }
}

/// Prints the demonstration as a story: a margin of verbs, what happened beside it.
private struct Story {
    func title(_ name: String, _ text: String) { print("\n\(Theme.strong(name))  \(text)\n") }
    func step(_ verb: String, _ text: String) {
        print("  " + Theme.strong(verb.padding(toLength: 8, withPad: " ", startingAt: 0)) + text)
    }
    func detail(_ text: String) { print("          " + Theme.quiet(text)) }
    func quote(_ text: String) {
        // Runs of dots say "bytes that are not text" as well as a hundred of them do.
        var short = text
        while short.contains("......") { short = short.replacingOccurrences(of: "......", with: ".....") }
        print("          " + Theme.quiet("> ") + short)
    }
    func moral(_ text: String, isGood: Bool) { print("          " + (isGood ? Theme.good(text) : Theme.exposed(text)) + "\n") }
    func end(_ text: String) { print("\n  " + text + "\n") }
}
