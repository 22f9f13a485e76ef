// Everything that was measured, as tables for people or as JSON (schema fother.bench-apply/1).

import Foundation
import Glibc

struct Report: Codable {
    var schema = "fother.bench-apply/1"
    var machine: String
    var gaps: [GapRow] = []
    var processes: [ManyRow] = []
    var memory: [MemoryRow] = []
    var counts: [CountRow] = []
    var callCost: [CallCostRow] = []
    var bars: [Bar] = []
}

/// Prints lines as they come, unless only JSON is wanted.
struct Terminal {
    let isQuiet: Bool
    private let isColoured = isatty(1) == 1 && ProcessInfo.processInfo.environment["NO_COLOR"] == nil

    init(isQuiet: Bool) { self.isQuiet = isQuiet }

    func line(_ text: String = "") { if !isQuiet { FileHandle.standardOutput.write(Data((text + "\n").utf8)) } }
    func head(_ text: String) {
        line()
        line(paint(text, "1"))
    }
    func progress(_ text: String) {
        if isatty(2) == 1 { FileHandle.standardError.write(Data("\r\u{1b}[K\(text)".utf8)) }
    }
    private func paint(_ text: String, _ code: String) -> String { isColoured ? "\u{1b}[\(code)m\(text)\u{1b}[0m" : text }

    /// First column left, the others right.
    private func columns(_ first: String, _ width: Int, _ others: [String]) {
        line(
            "  " + first.padding(toLength: max(width, first.count), withPad: " ", startingAt: 0)
                + others.map { String(repeating: " ", count: max(1, 11 - $0.count)) + $0 }.joined())
    }

    func gapsHead() {
        head("Longest gap that a spinning thread of the target saw, us")
        line("  Half of the other threads wait in futex, read, epoll_wait, nanosleep and poll; the rest call the patched functions")
        line("  50 times, then sleep: 5,000 wakings a second in all, whatever their number.  32 frames and more than 32 KiB of live")
        line("  stack each. control: nothing is done for as long as a transition takes. floor: seize, interrupt, read registers,")
        line("  detach, all threads, and nothing else.")
    }
    func show(_ rows: [GapRow]) {
        guard let first = rows.first else { return }
        line()
        columns(
            "\(first.threads) thread\(first.threads == 1 ? "" : "s"), spinner \(first.spinner), \(first.rounds) rounds", 44,
            ["median", "p99", "worst", "x floor", "wall med.", "attempts"])
        let floor = rows.first { $0.what == "floor" }?.gapMicroseconds.median ?? 0
        for row in rows {
            let g = row.gapMicroseconds
            columns(
                "  " + row.what, 44,
                [
                    rounded(g.median, 1), rounded(g.p99, 1), rounded(g.worst, 1),
                    row.path == nil || floor == 0 ? "" : rounded(g.median / floor, 2), rounded(row.wallMicroseconds.median, 0),
                    row.attempts.map { rounded($0, 2) } ?? "",
                ])
        }
    }
    func show(_ rows: [ManyRow]) {
        head("One command, many processes")
        columns("", 34, ["wall ms", "ms each", "KiB each"])
        for row in rows {
            columns(
                "\(row.what), \(row.processes) process\(row.processes == 1 ? "" : "es")", 34,
                [rounded(row.wallMilliseconds, 0), rounded(row.perProcessMilliseconds, 2), rounded(row.privateKiBEach, 1)])
        }
        line("  KiB each: private memory that a process has gained since before the apply.")
    }
    func show(_ rows: [MemoryRow]) {
        head("Memory that each of \(rows.first?.processes ?? 0) processes has more, KiB")
        columns("", 46, ["private", "prop.", "resident"])
        for row in rows {
            columns(
                row.kind, 46,
                [rounded(row.privateKiBEach, 1), rounded(row.proportionalKiBEach, 1), rounded(row.residentKiBEach, 1)])
        }
        line("  prop.: each shared page divided among those that share it.")
    }
    func show(_ rows: [CountRow]) {
        head("Calls of the kernel by one fother command, counted by strace")
        columns("", 34, ["ptrace", "process_vm", "all"])
        for row in rows {
            columns(
                "\(row.what), \(row.threads) thread\(row.threads == 1 ? "" : "s")", 34, ["\(row.ptrace)", "\(row.processVM)", "\(row.all)"])
        }
    }
    func show(_ rows: [CallCostRow]) {
        head("One call of a function of two instructions, ns, \(rows.first?.rounds ?? 0) rounds in turn")
        columns("", 34, ["median", "p99", "difference"])
        for row in rows {
            columns(
                row.state, 34,
                [
                    rounded(row.nanoseconds.median, 2), rounded(row.nanoseconds.p99, 2),
                    (row.differenceNanoseconds < 0 ? "" : "+") + rounded(row.differenceNanoseconds, 2),
                ])
        }
    }
    func show(_ bars: [Bar]) {
        head("Bars")
        for bar in bars {
            let word = bar.isMet.map { $0 ? paint("met   ", "32") : paint("missed", "31") } ?? "open  "
            line("  \(word)  \(bar.bar.padding(toLength: 58, withPad: " ", startingAt: 0)) \(bar.measured)")
        }
    }
}
