// How many system calls, and how many of them ptrace, one apply or revert takes: counted by strace in a run of its own.

import ELF
import Foundation
import LivePatch
import ProcessControl

struct CountRow: Codable {
    var threads: Int
    var what: String
    var ptrace: Int
    var processVM: Int
    var all: Int
}

enum CallCounts {
    static func measure(_ fixture: BenchFixture, threads: Int, program: String) throws -> [CountRow] {
        let target = try BenchTarget(fixture, threads: threads)
        return try ["apply", "revert"].map { verb in
            let table = fixture.folder + "/strace"
            _ = try ChildProcess.runChecked(
                ["strace", "-f", "-c", "-o", table, program, verb, fixture.patchPath, "--pid", "\(target.id)"]
                    + (verb == "apply" ? ["--trust-unsigned"] : []),
                environment: ManyTargets.environment(fixture))
            // % time, seconds, usecs/call, calls, [errors,] syscall
            let lines = try String(contentsOfFile: table, encoding: .utf8).split(separator: "\n").map { $0.split(separator: " ") }
            func calls(_ name: String) -> Int {
                lines.filter { $0.last.map { $0.hasPrefix(name) } == true && $0.count >= 5 }.reduce(0) { $0 + (Int($1[3]) ?? 0) }
            }
            return CountRow(
                threads: threads, what: verb, ptrace: calls("ptrace"), processVM: calls("process_vm"), all: calls("total"))
        }
    }
}
