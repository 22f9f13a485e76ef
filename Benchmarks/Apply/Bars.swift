// What the figures have to be, judged from the figures.

import Foundation

struct Bar: Codable {
    var bar: String
    var measured: String
    /// Nil: what it is about was not measured, or does not exist yet.
    var isMet: Bool?
}

enum Bars {
    static func judge(_ report: Report) -> [Bar] {
        func gap(_ what: String, _ threads: Int) -> Double? {
            report.gaps.first { $0.spinner == Gaps.Spinner.normal.rawValue && $0.threads == threads && $0.what == what }?.gapMicroseconds
                .median
        }
        var bars: [Bar] = []
        for path in Path.all where path.stopsAll {
            for threads in [1, 10, 100] {
                for verb in ["apply", "revert"] {
                    guard let floor = gap("floor", threads), let value = gap("\(verb), \(path.name)", threads) else { continue }
                    bars.append(
                        Bar(
                            bar: "\(verb), \(path.name), \(threads) thread\(threads == 1 ? "" : "s"): gap at most 2 x floor",
                            measured: "\(rounded(value / floor, 2)) x (\(rounded(value)) / \(rounded(floor)) us)", isMet: value <= 2 * floor
                        ))
                }
            }
        }
        let others = Path.all.filter { !$0.stopsAll }
        if others.isEmpty, !report.gaps.isEmpty {
            bars.append(Bar(bar: "without stop-all: gap at most 150 us", measured: "there is no such path", isMet: nil))
        }
        for path in others {
            for threads in [1, 10, 100, 1000] {
                for verb in ["apply", "revert"] {
                    guard let value = gap("\(verb), \(path.name)", threads) else { continue }
                    bars.append(
                        Bar(
                            bar: "\(verb), \(path.name), \(threads) thread\(threads == 1 ? "" : "s"): gap at most 150 us",
                            measured: "\(rounded(value)) us", isMet: value <= 150))
                }
            }
        }
        for row in report.processes where row.processes == 1000 {
            bars.append(
                Bar(
                    bar: "\(row.what), 1,000 processes: at most 2 s", measured: "\(rounded(row.wallMilliseconds / 1000, 2)) s",
                    isMet: row.wallMilliseconds <= 2000))
        }
        for row in report.callCost where row.state == "patched" {
            bars.append(
                Bar(
                    bar: "a call of a patched function: at most +1 ns", measured: "+\(rounded(row.differenceNanoseconds, 2)) ns",
                    isMet: row.differenceNanoseconds <= 1))
        }
        return bars
    }
}

/// With as many digits behind the point as asked for.
func rounded(_ value: Double, _ digits: Int = 0) -> String { String(format: "%.\(digits)f", value) }
