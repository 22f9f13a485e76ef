// One command over many processes: how long it takes, and what it costs each of them in memory.

import ELF
import Foundation
import LivePatch
import ProcessControl

struct ManyRow: Codable {
    var processes: Int
    var what: String
    var wallMilliseconds: Double
    var perProcessMilliseconds: Double
    /// Memory of its own that each process has gained since before, KiB.
    var privateKiBEach: Double
    /// Of processes that ended as asked.
    var done: Int
}

enum ManyTargets {
    /// `program` is fother; it finds the processes by itself, as an administrator would have it.
    static func measure(_ fixture: BenchFixture, processes: Int, program: String) throws -> [ManyRow] {
        let targets = try (0..<processes).map { _ in try BenchTarget(fixture, threads: 1) }
        func privateKiB() throws -> Int {
            try targets.reduce(0) { sum, target in
                let text = try String(contentsOfFile: "/proc/\(target.id)/smaps_rollup", encoding: .utf8)
                return sum
                    + text.split(separator: "\n").filter { $0.hasPrefix("Private_") }.reduce(0) { sum, line in
                        sum + (line.split(separator: " ").dropFirst().first.flatMap { Int($0) } ?? 0)
                    }
            }
        }
        let before = try privateKiB()
        return try [("apply", "patched"), ("revert", "reverted")].map { verb, word in
            let start = ContinuousClock.now
            let result = try ChildProcess.run(
                [program, verb, fixture.patchPath, "--json"] + (verb == "apply" ? ["--trust-unsigned"] : []),
                environment: environment(fixture), timeout: .seconds(120))
            let wall = (ContinuousClock.now - start).microseconds / 1000
            let done = result.outputText.components(separatedBy: "\"outcome\" : \"\(word)\"").count - 1
            guard done == processes else {
                throw Failure("bench", "\(verb): \(done) of \(processes) \(word); \(result.errorText.suffix(300))")
            }
            return ManyRow(
                processes: processes, what: verb, wallMilliseconds: wall, perProcessMilliseconds: wall / Double(processes),
                privateKiBEach: Double(try privateKiB() - before) / Double(processes), done: done)
        }
    }

    /// The machine's own store of patches is left alone.
    static func environment(_ fixture: BenchFixture) -> [String] {
        ProcessInfo.processInfo.environment.filter { $0.key != "FOTHER_STATE" }.map { "\($0.key)=\($0.value)" }
            + ["FOTHER_STATE=\(fixture.folder)/state"]
    }
}
