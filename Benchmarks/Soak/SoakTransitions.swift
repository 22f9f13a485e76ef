// Applies and reverts a patch in running processes without end, and kills the one who does it now and then, while somebody else
// puts the processes under load:
//   soak-transitions PATCH SECONDS PATH[,PATH] KILLS PID…
// PATH: stop-all, page-swap or automatic, in turn. KILLS: of how many cycles one ends with a SIGKILL at a moment that nobody
// chose; 0: none. Prints what happened. Exit: 0 nothing failed, 1 something did, 64 usage.

import ELF
import Foundation
import Glibc
import LivePatch
import LivePatchApplier
import ProcessControl

@main
struct SoakTransitions {
    static func main() {
        let words = Array(CommandLine.arguments.dropFirst())
        let pids = words.dropFirst(4).compactMap { Int32($0) }.map { ProcessID($0) }
        guard words.count > 4, let seconds = Int(words[1]), let kills = Int(words[3]), pids.count == words.count - 4,
            let paths = Transitions.paths(words[2])
        else {
            print("usage: soak-transitions PATCH SECONDS stop-all|page-swap|automatic[,…] KILLS PID…")
            exit(64)
        }
        do {
            let patch = try LivePatch(parsing: RegularFile.read(words[0]), name: words[0])
            var transitions = Transitions(patch: patch, file: words[0], paths: paths, killsOneOf: kills)
            // Seconds below zero: the one who is killed, which works until then.
            try transitions.run(on: pids, for: seconds < 0 ? .seconds(3600) : .seconds(seconds))
            transitions.show()
        } catch {
            let failure = error as? Failure
            print("  FAILED \(failure.map { "\($0.place): \($0.sentence) [\($0.code)]" } ?? "\(error)")")
            exit(1)
        }
    }
}

/// Counts, and what is done next.
struct Transitions {
    let patch: LivePatch
    let file: String
    let paths: [(name: String, path: TransitionPath)]
    let killsOneOf: Int
    private var counts: [String: [String: Int]] = [:]
    private var pauses: [String: [Double]] = [:]
    private var kills = 0
    private var grown: [String] = []

    init(patch: LivePatch, file: String, paths: [(String, TransitionPath)], killsOneOf: Int) {
        (self.patch, self.file, self.paths, self.killsOneOf) = (patch, file, paths, killsOneOf)
    }

    static func paths(_ names: String) -> [(String, TransitionPath)]? {
        let known: [String: TransitionPath] = ["stop-all": .stopAll, "page-swap": .pageSwap, "automatic": .automatic]
        let words = names.split(separator: ",").map(String.init)
        let paths = words.compactMap { word in known[word].map { (word, $0) } }
        return paths.isEmpty || paths.count < words.count ? nil : paths
    }

    /// Failure: of a transition that neither did what it should nor declined it.
    mutating func run(on pids: [ProcessID], for time: Duration) throws {
        let end = ContinuousClock.now + time
        var cycle = 0
        // The first cycle leaves the patch's memory in the process; after it nothing may be added.
        var first: [ProcessID: (maps: Int, kib: Int)] = [:]
        while ContinuousClock.now < end {
            for pid in pids {
                for (name, path) in paths {
                    var applier = Applier(Tracer())
                    applier.path = path
                    applier.budget.timeout = .seconds(5)
                    applier.budget.settling = .milliseconds(200)
                    cycle += 1
                    if killsOneOf > 0, cycle % killsOneOf == 0 { try killOne(pid, name) }
                    try once(applier, pid, name)
                }
                if first[pid] == nil { first[pid] = try size(pid) }
            }
        }
        for pid in pids {
            let now = try size(pid), then = first[pid] ?? now
            grown.append("process \(pid): \(then.kib) -> \(now.kib) KiB resident, \(then.maps) -> \(now.maps) mappings")
        }
    }

    private mutating func once(_ applier: Applier, _ pid: ProcessID, _ path: String) throws {
        switch applier.apply(patch, to: pid) {
        case .patched(let report):
            note(path, "applied")
            if !report.finishing.isEmpty { note(path, "with calls that still ended as old") }
            pauses[path, default: []].append(report.pause.microseconds)
        case .alreadyPatched: note(path, "found applied")
        case .blocked: note(path, "declined for lack of a safe moment")
        case .refused(let failure) where failure.code == "page-swap": note(path, "not possible: \(failure.sentence)")
        case .refused(let failure), .couldNotTell(let failure): throw failure
        case let other: throw Failure("soak", "apply: \(other)", at: "process \(pid)")
        }
        let end = ContinuousClock.now + .seconds(60)
        while true {
            switch applier.revert(patch, in: pid) {
            case .reverted:
                note(path, "reverted")
                return
            case .notPatched: return
            case .blocked where ContinuousClock.now < end: note(path, "reverts tried again")
            case .refused(let failure), .couldNotTell(let failure): throw failure
            case let other: throw Failure("soak", "revert: \(other)", at: "process \(pid)")
            }
        }
    }

    /// Another process does the same until it is killed, within 20 ms of its start.
    private mutating func killOne(_ pid: ProcessID, _ path: String) throws {
        let child = try ChildProcess(["/proc/self/exe", file, "-1", path, "0", "\(pid)"], output: .null)
        usleep(UInt32.random(in: 5_000..<25_000))
        child.signal(SIGKILL)
        try child.wait()
        kills += 1
    }

    private mutating func note(_ path: String, _ what: String) { counts[path, default: [:]][what, default: 0] += 1 }

    private func size(_ pid: ProcessID) throws -> (maps: Int, kib: Int) {
        let status = try String(contentsOfFile: "/proc/\(pid)/status", encoding: .utf8)
        let line = status.split(separator: "\n").first { $0.hasPrefix("VmRSS:") } ?? ""
        return (try ProcessHandle(pid).mappings().count, line.split(separator: " ").compactMap { Int($0) }.first ?? 0)
    }

    func show() {
        for (name, _) in paths {
            let all = (counts[name] ?? [:]).sorted { $0.key < $1.key }.map { "\($0.value) \($0.key)" }.joined(separator: ", ")
            print("  \(name): \(all)")
            let sorted = (pauses[name] ?? []).sorted()
            if let worst = sorted.last, worst > 0 {
                let at = { (share: Double) in Int(sorted[min(sorted.count - 1, Int(share * Double(sorted.count)))]) }
                print("    all threads stood still: median \(at(0.5)) us, p99 \(at(0.99)) us, worst \(Int(worst)) us")
            }
        }
        if kills > 0 { print("  \(kills) of those who did it were killed in the middle") }
        for line in grown { print("  \(line)") }
    }
}

extension Duration {
    var microseconds: Double { Double(components.seconds) * 1e6 + Double(components.attoseconds / 1_000_000_000) / 1000 }
}
