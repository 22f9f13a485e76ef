// Times the patch builder on pairs of files and prints what it decided: bench-build OLD NEW [OLD NEW …]
// One line a pair; the time is the median of `--rounds` builds (default 3).

import ELF
import Foundation
import LivePatch
import LivePatchBuilder

@main
struct BuildBenchmark {
    static func main() {
        var words = Array(CommandLine.arguments.dropFirst())
        var rounds = 3
        var isVerbose = false
        var output: String?
        while let option = words.first, option.hasPrefix("-") {
            words.removeFirst()
            switch option {
            case "--rounds": rounds = words.first.flatMap { Int($0) } ?? rounds; words = Array(words.dropFirst())
            case "--verbose": isVerbose = true
            case "-o", "--output": output = words.first; words = Array(words.dropFirst())
            default: print("usage: bench-build [--rounds N] [--verbose] OLD NEW …"); exit(64)
            }
        }
        for i in stride(from: 0, to: words.count - 1, by: 2) { run(words[i], words[i + 1], rounds, isVerbose, output) }
    }

    static func run(_ old: String, _ new: String, _ rounds: Int, _ isVerbose: Bool, _ output: String?) {
        let name = (new as NSString).lastPathComponent
        guard let a = FileManager.default.contents(atPath: old), let b = FileManager.default.contents(atPath: new) else {
            print("\(name): cannot read")
            return
        }
        var seconds: [Double] = []
        var result: BuildResult?
        do {
            for _ in 0..<max(1, rounds) {
                let start = ContinuousClock.now
                result = try build(old: Array(a), new: Array(b), BuildContext(object: name))
                let took = ContinuousClock.now - start
                seconds.append(Double(took.components.seconds) + Double(took.components.attoseconds) / 1e18)
            }
        } catch {
            print("\(name): \(error)")
            return
        }
        guard let result else { return }
        let s = result.statistics, median = seconds.sorted()[seconds.count / 2]
        let outcome: String =
            switch result.outcome {
            case .nothingToDo: "nothing to do"
            case .patch: result.manifest.verdict.rawValue
            case .refused: "refuse"
            }
        print(
            "\(name): \(outcome), \(s.newFunctions) functions, \(s.same) same, \(s.linesOnly) lines only, \(s.changed) changed, \(s.added) added, \(s.moved) moved, \(b.count / 1024) KiB, \(String(format: "%.2f", median)) s, \(peakMiB()) MiB at most"
        )
        if isVerbose {
            for f in result.manifest.functions {
                print("   \(f.isHooked ? "hook" : "    ") \(f.name) \(f.oldSize) -> \(f.newSize): \(f.why)")
            }
            for f in result.manifest.findings { print("   \(f.verdict.rawValue) \(f.key): \(f.sentence)") }
            for (k, v) in result.manifest.references.sorted(by: { $0.key < $1.key }) { print("   \(v) \(k)") }
        }
        if let output, case .patch(let bytes) = result.outcome { try? Data(bytes).write(to: URL(fileURLWithPath: output)) }
    }

    /// The most memory that this process ever held, from the kernel's own account.
    static func peakMiB() -> Int {
        let status = (try? String(contentsOfFile: "/proc/self/status", encoding: .utf8)) ?? ""
        let line = status.split(separator: "\n").first { $0.hasPrefix("VmHWM:") } ?? ""
        return (line.split(whereSeparator: \.isWhitespace).dropFirst().first.flatMap { Int($0) } ?? 0) / 1024
    }
}
