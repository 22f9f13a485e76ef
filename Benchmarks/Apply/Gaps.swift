// How long a spinning thread inside the target is kept from its work by a transition, beside doing nothing and beside the
// bare floor of a stop, all in one run and in turn.

import ELF
import Foundation
import Glibc
import LivePatch
import LivePatchApplier
import ProcessControl

/// One way to install sites. Another is another element here, and a row in every table.
struct Path {
    let name: String
    /// Every thread stands still at once; its bar is the floor, otherwise an absolute one.
    let stopsAll: Bool
    let applier: Applier

    static var all: [Path] {
        [("stop-all", true, TransitionPath.stopAll), ("page swap", false, .pageSwap)].map { name, stopsAll, path in
            var applier = Applier(Tracer())
            applier.path = path
            return Path(name: name, stopsAll: stopsAll, applier: applier)
        }
    }
}

/// Values of many rounds, in the unit of the field's name.
struct Spread: Codable {
    var median: Double
    var p99: Double
    var worst: Double

    init(_ values: [Double]) {
        let sorted = values.sorted()
        func at(_ share: Double) -> Double { sorted.isEmpty ? 0 : sorted[min(sorted.count - 1, Int(share * Double(sorted.count)))] }
        (median, p99, worst) = (at(0.5), at(0.99), sorted.last ?? 0)
    }
}

struct GapRow: Codable {
    var threads: Int
    /// How the spinner runs: "normal", "SCHED_FIFO" or "one CPU".
    var spinner: String
    /// "control", "floor", or a path and what it did.
    var what: String
    /// Absent for control and floor.
    var path: String?
    var rounds: Int
    var gapMicroseconds: Spread
    var wallMicroseconds: Spread
    /// Stops or other attempts a transition needed, on average.
    var attempts: Double?
}

enum Gaps {
    enum Spinner: String, CaseIterable {
        case normal, fifo = "SCHED_FIFO", pinned = "one CPU"
    }

    /// Rows for one process of `threads` threads. Throws when a transition does not do what it should: a benchmark of
    /// something that failed says nothing.
    static func measure(_ fixture: BenchFixture, threads: Int, spinner: Spinner, rounds: Int) throws -> [GapRow] {
        let target = try BenchTarget(fixture, threads: threads), tracer = Tracer()
        // As the program does it; the next target must not begin with it.
        Tracer.stepBack()
        defer { _ = setpriority(__priority_which_t(PRIO_PROCESS.rawValue), 0, 0) }
        if spinner == .pinned { _ = try ChildProcess.runChecked(["taskset", "-a", "-p", "-c", "0", "\(target.id)"]) }
        let isRealtime = spinner == .fifo
        struct Series {
            var gaps: [Double] = [], walls: [Double] = [], attempts = 0
        }
        var names: [String] = [], series: [String: Series] = [:], pathOf: [String: String] = [:]
        func note(_ name: String, path: String? = nil, attempts: Int = 0, _ value: (gap: Double, wall: Double)) {
            if series[name] == nil { names.append(name) }
            series[name, default: Series()].gaps.append(value.gap)
            series[name, default: Series()].walls.append(value.wall)
            series[name, default: Series()].attempts += attempts
            pathOf[name] = path
        }
        // The control lasts as long as the transition before it did.
        var typical = 2000.0
        var interrupted: UInt64 = 0
        for round in 0..<rounds {
            note("control", try target.gap(realtime: isRealtime) { usleep(UInt32(min(typical, 200_000))) })
            note("floor", try target.gap(realtime: isRealtime) { _ = try tracer.measureFloor(target.handle) })
            // The bare floor does nothing for the calls that it interrupts, and they return; a transition must.
            let before = try target.settledReturns()
            for path in Path.all {
                for (verb, transition) in [
                    ("apply", { path.applier.apply(fixture.patch, to: target.id) }),
                    ("revert", { path.applier.revert(fixture.patch, in: target.id) }),
                ] {
                    var attempts = 0
                    let value = try target.gap(realtime: isRealtime) {
                        switch transition() {
                        case .patched(let report), .reverted(let report): attempts = report.attempts
                        case let other: throw Failure("bench", "\(verb), \(path.name): \(other)")
                        }
                    }
                    // The first apply maps memory and reads unwind data; it is in the wall time of many processes.
                    if round > 0 { note("\(verb), \(path.name)", path: path.name, attempts: attempts, value) }
                    typical = value.wall
                }
            }
            interrupted += try target.settledReturns() - before
        }
        let wrong = try target.wrongAnswers()
        guard wrong == 0, interrupted == 0 else {
            throw Failure("bench", "\(wrong) wrong answers and \(interrupted) interrupted calls in the target.")
        }
        return names.compactMap { name in
            guard let s = series[name] else { return nil }
            return GapRow(
                threads: threads, spinner: spinner.rawValue, what: name, path: pathOf[name], rounds: s.gaps.count,
                gapMicroseconds: Spread(s.gaps), wallMicroseconds: Spread(s.walls),
                attempts: pathOf[name] == nil ? nil : Double(s.attempts) / Double(s.gaps.count))
        }
    }
}
