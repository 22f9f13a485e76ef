// Fother is killed at moments that nobody chose, again and again. After each the target runs the old code or the new and
// never a mixture, and whoever comes next carries on.

import ELF
import Foundation
import Glibc
import LivePatch
import LivePatchApplier
import ProcessControl
import Testing

/// Runs in the child process of an exit test: applies and reverts without end, until it is killed by itself.
func transitions(_ path: String, _ pid: Int32, microseconds: UInt32, unmap: Bool) throws {
    let patch = try LivePatch(parsing: RegularFile.read(path), name: path), id = ProcessID(pid)
    let applier = Applier(Tracer())
    let alarm = Thread {
        usleep(microseconds)
        kill(getpid(), SIGKILL)
    }
    alarm.start()
    while true {
        _ = applier.apply(patch, to: id)
        _ = applier.revert(patch, in: id, unmap: unmap)
    }
}

extension SystemTests {
    @Suite struct KilledAtRandomTests {
        let applier = Applier(Tracer())

        /// Kills of each kind of target; `make soak` asks for thousands.
        static let rounds = ProcessInfo.processInfo.environment["FOTHER_KILLS"].flatMap { Int($0) } ?? 12
        static let seed = ProcessInfo.processInfo.environment["FOTHER_SEED"].flatMap { UInt64($0) } ?? .random(in: 0 ..< .max)

        @Test(
            "killed at random moments",
            arguments: [
                ["--threads", "3"], ["--threads", "10", "--block", "futex"], ["--block", "read"], ["--block", "nanosleep"],
                ["--block", "epoll_wait"], ["--churn"],
            ], [false, true])
        func anyMoment(_ arguments: [String], unmap: Bool) async throws {
            let victim = try Victim(arguments: arguments)
            var generator = Seeded(Self.seed)
            let hasLoad = arguments.contains("--threads"), isPatient = ["read", "nanosleep", "futex"].contains(arguments.last)
            for round in 0..<Self.rounds {
                let delay = UInt32.random(in: 0..<20_000, using: &generator)
                await #expect(processExitsWith: .signal(SIGKILL)) {
                    [
                        path = victim.fixture.patchPath as String, pid = victim.id.value as Int32, delay = delay as UInt32,
                        unmap = unmap as Bool
                    ] in
                    try transitions(path, pid, microseconds: delay, unmap: unmap)
                }
                let place = "round \(round), seed \(Self.seed)"
                #expect(try victim.handle.status().tracer == nil, "\(place)")
                let state = try victim.state
                #expect(["patched", "retired", "interrupted", "unfinished", "none"].contains(state), "\(place): \(state)")
                #expect(try victim.isVulnerable == (state != "patched"), "\(place): \(state)")
                if hasLoad { try victim.expectHealthyLoad() }
            }
            // Whatever was left, the next one makes it right.
            #expect(["patched", "already patched"].contains(applier.apply(victim.patch, to: victim.id).word))
            #expect(try !victim.isVulnerable)
            #expect(applier.revert(victim.patch, in: victim.id).word == "reverted")
            #expect(try victim.isVulnerable)
            if isPatient { #expect(try victim.blocked.returns == 0, "the kernel restarts this call by itself") }
        }
    }
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
