// Applies and reverts a patch over and over in running processes and prints the pause beside the bare floor of the same
// run: bench-apply PATCH PID [ROUNDS]
// The floor is what stopping costs without doing anything: seize, interrupt, read registers, detach.

import ELF
import Foundation
import LivePatch
import LivePatchApplier
import ProcessControl

@main
struct ApplyBenchmark {
    static func main() throws {
        let words = CommandLine.arguments
        guard words.count >= 3, let id = Int32(words[2]), let bytes = FileManager.default.contents(atPath: words[1]) else {
            print("usage: bench-apply PATCH PID [ROUNDS]")
            exit(64)
        }
        let rounds = words.count > 3 ? Int(words[3]) ?? 200 : 200
        let patch = try LivePatch(parsing: Array(bytes), name: words[1])
        let tracer = Tracer(), applier = Applier(tracer), process = try ProcessHandle(ProcessID(id))
        var pauses: [Double] = [], floors: [Double] = [], attempts = 0
        for _ in 0..<rounds {
            floors.append(try tracer.measureFloor(process).microseconds)
            for outcome in [applier.apply(patch, to: process.id), applier.revert(patch, in: process.id)] {
                switch outcome {
                case .patched(let report), .reverted(let report):
                    pauses.append(report.pause.microseconds)
                    attempts += report.attempts
                default:
                    print("unexpected: \(outcome)")
                    exit(1)
                }
            }
        }
        let pause = median(pauses), floor = median(floors)
        print("\(rounds) cycles, \(try process.threads().count) threads, \(attempts) stops for \(pauses.count) transitions")
        print("pause  median \(pause) us, worst \(pauses.max() ?? 0) us")
        print("floor  median \(floor) us, worst \(floors.max() ?? 0) us")
        print("ratio  \((pause / floor * 100).rounded() / 100)")
    }

    static func median(_ values: [Double]) -> Double { values.sorted()[values.count / 2] }
}

extension Duration {
    var microseconds: Double { Double(components.seconds) * 1e6 + Double(components.attoseconds / 1_000_000_000) / 1000 }
}
