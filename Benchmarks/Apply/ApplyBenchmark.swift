// Measures what patching costs the patched, in one run beside doing nothing and beside the bare floor of a stop:
//   bench-apply [--rounds N] [--only gaps|processes|memory|counts|cost] [--threads N,…] [--json]
// FOTHER: the program, for many processes and for counting (default: fother beside this one). Needs root.
// Exit: 0 measured, whether the bars are met or not; 1 something failed; 64 usage; 77 not root.

import ELF
import Foundation
import Glibc
import LivePatchApplier
import ProcessControl

@main
struct ApplyBenchmark {
    struct Options {
        var rounds = 101
        var only: Set<String> = ["gaps", "processes", "memory", "counts", "cost"]
        var threads = [1, 10, 100, 1000]
        var isJSON = false

        init?(_ words: [String]) {
            var words = words[...]
            while let option = words.popFirst() {
                switch option {
                case "--json": isJSON = true
                case "--rounds":
                    guard let n = words.popFirst().flatMap({ Int($0) }), n > 1 else { return nil }
                    rounds = n
                case "--only":
                    guard let part = words.popFirst(), only.contains(part) else { return nil }
                    only = [part]
                case "--threads":
                    guard let list = words.popFirst() else { return nil }
                    threads = list.split(separator: ",").compactMap { Int($0) }.filter { $0 > 0 && $0 <= 10_000 }
                    if threads.isEmpty { return nil }
                default: return nil
                }
            }
        }
    }

    static func main() {
        guard let options = Options(Array(CommandLine.arguments.dropFirst())) else {
            print("usage: bench-apply [--rounds N] [--only gaps|processes|memory|counts|cost] [--threads N,…] [--json]")
            exit(64)
        }
        guard geteuid() == 0 else {
            print("bench-apply: patching other processes needs root")
            exit(77)
        }
        do {
            let fixture = try BenchFixture()
            defer { fixture.remove() }
            try run(options, fixture)
        } catch {
            let failure = error as? Failure
            FileHandle.standardError.write(Data("bench-apply: \(failure.map { "\($0.place): \($0.sentence)" } ?? "\(error)")\n".utf8))
            exit(1)
        }
    }

    private static func run(_ options: Options, _ fixture: BenchFixture) throws {
        let terminal = Terminal(isQuiet: options.isJSON)
        let beside = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath().deletingLastPathComponent().path + "/fother"
        let program = ProcessInfo.processInfo.environment["FOTHER"] ?? beside
        var report = Report(machine: machine())
        terminal.line("fother bench-apply  \(report.machine)")
        if options.only.contains("gaps") {
            terminal.gapsHead()
            for spinner in Gaps.Spinner.allCases {
                for threads in options.threads {
                    terminal.progress("\(threads) threads, spinner \(spinner.rawValue)")
                    // Beside the main rows, not instead of them: fewer rounds.
                    let rounds = spinner == .normal ? options.rounds : max(2, options.rounds * 3 / 10)
                    let rows = try Gaps.measure(fixture, threads: threads, spinner: spinner, rounds: rounds)
                    terminal.progress("")
                    report.gaps += rows
                    terminal.show(rows)
                }
            }
        }
        if options.only.contains("processes") {
            for count in [1, 100, 1000] {
                terminal.progress("\(count) processes")
                report.processes += try ManyTargets.measure(fixture, processes: count, program: program)
            }
            terminal.progress("")
            terminal.show(report.processes)
        }
        if options.only.contains("memory") {
            report.memory = try CodeMemory.measure(fixture, processes: 100)
            terminal.show(report.memory)
        }
        if options.only.contains("counts") {
            for threads in options.threads { report.counts += try CallCounts.measure(fixture, threads: threads, program: program) }
            terminal.show(report.counts)
        }
        if options.only.contains("cost") {
            report.callCost = try CallCost.measure(fixture, rounds: max(31, options.rounds * 6 / 10))
            terminal.show(report.callCost)
        }
        report.bars = Bars.judge(report)
        terminal.show(report.bars)
        if options.isJSON {
            let encoder = JSONEncoder()
            encoder.outputFormatting = [.prettyPrinted, .sortedKeys]
            FileHandle.standardOutput.write(try encoder.encode(report) + Data("\n".utf8))
        }
    }

    /// Processor, count, kernel and load: figures without them mean little.
    private static func machine() -> String {
        func text(_ path: String) -> String { (try? String(contentsOfFile: path, encoding: .utf8)) ?? "" }
        let model = text("/proc/cpuinfo").split(separator: "\n").first { $0.hasPrefix("model name") }?
            .split(separator: ":").last?.trimmingCharacters(in: .whitespaces)
        let kernel = text("/proc/sys/kernel/osrelease").trimmingCharacters(in: .whitespacesAndNewlines)
        let load = text("/proc/loadavg").split(separator: " ").first ?? "?"
        return
            "\(model ?? "unknown processor"), \(ProcessInfo.processInfo.activeProcessorCount) CPUs, Linux \(kernel), load average \(load)"
    }
}
