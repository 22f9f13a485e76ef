// Fother is killed at moments that nobody chose, again and again. After each the target runs the old code or the new and
// never a mixture, and whoever comes next carries on.

import ELF
import Foundation
import Glibc
import LivePatch
import LivePatchApplier
import ProcessControl
import Synchronization
import Testing

/// A way to install sites: each is killed as often as the others.
enum Scheme: String, CaseIterable, Sendable, CustomTestStringConvertible {
    case stopAll = "stop-all", pageSwap = "page swap"
    var testDescription: String { rawValue }

    /// As an administrator's fother would, a page swap that is not possible, because of what a killed one left, makes way for a stop.
    /// `done` is told how a transition was carried out.
    func perform(code: CodeFiles? = nil, done: (Scheme) -> Void = { _ in }, _ transition: (Applier) -> ProcessOutcome) -> ProcessOutcome {
        var applier = Applier(Tracer())
        applier.codeFiles = code
        if self == .pageSwap {
            applier.path = .pageSwap
            let outcome = transition(applier)
            guard case .refused(let failure) = outcome, failure.code == "page-swap" else {
                if outcome.isDone { done(.pageSwap) }
                return outcome
            }
        }
        applier.path = .stopAll
        let outcome = transition(applier)
        if outcome.isDone { done(.stopAll) }
        return outcome
    }
}

/// Runs in the child process of an exit test: applies and reverts without end, until it is killed by itself. A letter for each
/// transition goes to the file `tally`.
func transitions(
    _ path: String, _ pid: Int32, microseconds: UInt32, scheme: Scheme = .stopAll, unmap: Bool, tally: String = "", code: String = ""
) throws {
    let patch = try LivePatch(parsing: RegularFile.read(path), name: path), id = ProcessID(pid)
    let file = FileHandle(forWritingAtPath: tally)
    try file?.seekToEnd()
    func note(_ way: Scheme) { file?.write(Data(way.rawValue.utf8.prefix(1))) }
    let alarm = Thread {
        usleep(microseconds)
        kill(getpid(), SIGKILL)
    }
    alarm.start()
    let code = code.isEmpty ? nil : CodeFiles(folder: code)
    while true {
        _ = scheme.perform(code: code, done: note) { $0.apply(patch, to: id) }
        _ = scheme.perform(done: note) { $0.revert(patch, in: id, unmap: unmap) }
    }
}

extension SystemTests {
    @Suite struct KilledAtRandomTests {
        /// Kills of each kind of target; `make soak` asks for thousands.
        static let rounds = ProcessInfo.processInfo.environment["FOTHER_KILLS"].flatMap { Int($0) } ?? 12
        static let seed = ProcessInfo.processInfo.environment["FOTHER_SEED"].flatMap { UInt64($0) } ?? .random(in: 0 ..< .max)

        /// Starts a Fother that works on `victim` and dies within `limit` microseconds: about as long as two transitions take.
        private func killOne(
            on victim: Victim, _ generator: inout Seeded, within limit: UInt32 = 20_000, butNotBefore least: UInt32 = 0,
            scheme: Scheme = .stopAll, unmap: Bool, tally: String = "", code: String = ""
        )
            async
        {
            let delay = UInt32.random(in: least..<limit, using: &generator)
            await #expect(processExitsWith: .signal(SIGKILL)) {
                [
                    path = victim.fixture.patchPath as String, pid = victim.id.value as Int32, delay = delay as UInt32,
                    scheme = scheme.rawValue as String, unmap = unmap as Bool, tally = tally as String, code = code as String
                ] in
                try transitions(
                    path, pid, microseconds: delay, scheme: #require(Scheme(rawValue: scheme)), unmap: unmap, tally: tally, code: code)
            }
        }

        /// The state that was left, which what the victim runs agrees with.
        private func settled(_ victim: Victim, _ place: String) throws -> String {
            #expect(try victim.handle.status().tracer == nil, "\(place)")
            let state = try victim.state
            #expect(["patched", "retired", "interrupted", "unfinished", "none"].contains(state), "\(place): \(state)")
            #expect(try victim.isVulnerable == (state != "patched"), "\(place): \(state)")
            return state
        }

        /// Whatever was left, the next one makes it right.
        private func finish(_ victim: Victim, scheme: Scheme = .stopAll) throws {
            let outcome = scheme.perform { $0.apply(victim.patch, to: victim.id) }
            #expect(["patched", "already patched"].contains(outcome.word), "\(outcome)")
            #expect(try !victim.isVulnerable)
            #expect(scheme.perform { $0.revert(victim.patch, in: victim.id) }.word == "reverted")
            #expect(try victim.isVulnerable)
        }

        @Test(
            "killed at random moments",
            arguments: [
                ["--threads", "3"], ["--threads", "10", "--block", "futex"], ["--block", "read"], ["--block", "nanosleep"],
                ["--block", "epoll_wait"], ["--churn"], ["--seccomp", "errno"],
            ], [false, true])
        func anyMoment(_ arguments: [String], unmap: Bool) async throws {
            let victim = try Victim(arguments: arguments)
            var generator = Seeded(Self.seed)
            let hasLoad = arguments.contains("--threads"), isPatient = ["read", "nanosleep", "futex"].contains(arguments.last)
            for round in 0..<Self.rounds {
                await killOne(on: victim, &generator, unmap: unmap)
                _ = try settled(victim, "round \(round), seed \(Self.seed)")
                if hasLoad { try victim.expectHealthyLoad() }
            }
            try finish(victim)
            if isPatient { #expect(try victim.blocked.returns == 0, "the kernel restarts this call by itself") }
        }

        @Test(
            "killed while a thousand threads sleep or stand still: none wakes up, and the next one makes it right",
            arguments: Scheme.allCases)
        func thousandThreads(_ scheme: Scheme) async throws {
            let victim = try Victim("flow.c", ["longjmp", "sleepers", "1000"])
            var generator = Seeded(Self.seed)
            for round in 0..<min(Self.rounds, 100) {
                await killOne(on: victim, &generator, within: 600_000, scheme: scheme, unmap: false)
                _ = try settled(victim, "round \(round), seed \(Self.seed)")
            }
            try finish(victim, scheme: scheme)
            #expect(try victim.load[1] == 0)
            #expect(try victim.handle.status().threadCount == 1002)
        }

        @Test("a signal that a thread has taken from its queue when Fother is killed in a stop is delivered nevertheless")
        func signals() async throws {
            let victim = try Victim("--threads", "3", "--block", "pause")
            for round in 0..<min(4 * Self.rounds, 200) {
                let isOver = Flag()
                // One signal after the other, each when the one before has been handled.
                async let undelivered = Task.detached {
                    while !isOver.isSet {
                        let before = try victim.blocked.signals
                        kill(victim.id.value, SIGUSR1)
                        let deadline = ContinuousClock.now + .seconds(3)
                        while try victim.blocked.signals == before {
                            if ContinuousClock.now > deadline { return true }
                        }
                    }
                    return false
                }.value
                await #expect(processExitsWith: .signal(SIGKILL)) {
                    [path = victim.fixture.patchPath as String, pid = victim.id.value as Int32] in
                    let patch = try LivePatch(parsing: RegularFile.read(path), name: path)
                    let applier = Applier(Tracer(), checkpoint: { if $0 == .stopped { kill(getpid(), SIGKILL) } })
                    _ = applier.apply(patch, to: ProcessID(pid))
                }
                isOver.set()
                try #require(await !undelivered, "lost in round \(round)")
            }
            try finish(victim)
        }

        private static func descriptors(of victim: Victim) throws -> [String] {
            try FileManager.default.contentsOfDirectory(atPath: "/proc/\(victim.id)/fd").sorted()
        }

        /// What Fixtures/targets/crowd.c counts.
        private struct Counts {
            var calls, bad, returns, apart, forks, storms, cancelled, kept: Int
            init(_ victim: Victim) throws {
                let n = try victim.ask("counts").split(separator: " ").compactMap { Int($0) }
                try #require(n.count == 8)
                (calls, bad, returns, apart, forks, storms, cancelled, kept) = (n[0], n[1], n[2], n[3], n[4], n[5], n[6], n[7])
            }
        }

        @Test("killed in a crowd: signals, registers, waits, forks, threads, cancellation", arguments: Scheme.allCases, ["many", "single"])
        func crowd(scheme: Scheme, mode: String) async throws {
            let victim = try Victim("crowd.c", [mode]), tally = victim.fixture.folder + "/tally"
            try Data().write(to: URL(fileURLWithPath: tally))
            var generator = Seeded(Self.seed), left: [String: Int] = [:], last = try Counts(victim)
            let code = CodeFolder(), descriptors = try Self.descriptors(of: victim)
            for round in 0..<Self.rounds {
                let place = "\(scheme.rawValue), \(mode), round \(round), seed \(Self.seed)"
                // Now and then it may take its time, so that transitions are completed on a slow machine too.
                let isPatient = round % 6 == 5
                await killOne(
                    on: victim, &generator, within: isPatient ? 1_500_000 : mode == "many" ? 120_000 : 60_000,
                    butNotBefore: isPatient ? 500_000 : 0, scheme: scheme, unmap: round % 4 == 3, tally: tally, code: code.path)
                left[try settled(victim, place), default: 0] += 1
                let counts = try Counts(victim)
                #expect(counts.bad == last.bad, "\(place): wrong answers, registers or snapshots")
                #expect(counts.returns == last.returns, "\(place): waits that returned")
                last = counts
            }
            try finish(victim, scheme: scheme)
            // Everything went on.
            let before = try Counts(victim)
            try victim.wait {
                let now = try Counts(victim)
                let isMany = mode == "many"
                return now.calls > before.calls && now.forks > before.forks && now.storms > before.storms && now.kept > before.kept
                    && (!isMany || now.cancelled > before.cancelled)
            }
            let end = try Counts(victim)
            #expect(end.bad == 0)
            #expect(end.returns == 0)
            // One of many threads may be about to open something; a child of one thread waits for nobody.
            if mode == "single" { #expect(try Self.descriptors(of: victim) == descriptors, "a call that opens a file closes it") }
            let letters = try String(contentsOfFile: tally, encoding: .utf8)
            #expect(Self.rounds < 12 || letters.contains(scheme.rawValue.prefix(1)), "no transition was completed by the scheme")
            let ways = Scheme.allCases.map { way in "\(letters.count { String($0) == way.rawValue.prefix(1) }) by \(way.rawValue)" }
            print(
                """
                    \(scheme.rawValue), \(mode == "many" ? "many threads" : "one thread"): \(Self.rounds) kills, 0 deaths, 0 half patched; \
                wrong answers, registers or snapshots \(end.bad); waits interrupted \(end.returns)
                      left behind: \(left.sorted { $0.key < $1.key }.map { "\($0.key) \($0.value)" }.joined(separator: ", ")); transitions \
                completed: \(ways.joined(separator: ", "))
                      meanwhile: \(end.calls) calls, \(end.forks) forks, \(end.storms) signals, \(end.cancelled) cancelled threads, \
                \(end.kept) register checks; apart: \(end.apart) EINTR of epoll_wait and sigtimedwait
                """)
        }
    }
}

private final class Flag: Sendable {
    private let value = Mutex(false)
    var isSet: Bool { value.withLock { $0 } }
    func set() { value.withLock { $0 = true } }
}

/// SplitMix64: the same seed gives the same moments, as far as a scheduler can.
private struct Seeded: RandomNumberGenerator {
    private var state: UInt64
    init(_ seed: UInt64) { state = seed }
    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var z = state
        z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
        z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
        return z ^ (z >> 31)
    }
}
