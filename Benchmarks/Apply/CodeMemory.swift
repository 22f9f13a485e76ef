// What a patch costs each of many processes in memory, by the kind of memory that its code is in.

import ELF
import Foundation
import LivePatch
import LivePatchApplier
import ProcessControl

struct MemoryRow: Codable {
    var processes: Int
    var kind: String
    /// Memory that only one process has, more than before, KiB each.
    var privateKiBEach: Double
    /// With each shared page divided among those that share it.
    var proportionalKiBEach: Double
    var residentKiBEach: Double
}

enum CodeMemory {
    private struct Use {
        var own = 0, proportional = 0, resident = 0
    }

    static func measure(_ fixture: BenchFixture, processes: Int) throws -> [MemoryRow] {
        let folder = fixture.folder + "/state"
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        var codeBytes = 0
        func applied(_ targets: [BenchTarget], _ files: CodeFiles?) throws {
            var applier = Applier(Tracer())
            applier.codeFiles = files
            for target in targets {
                guard case .patched(let report) = applier.apply(fixture.patch, to: target.id) else {
                    throw Failure("bench", "not patched.")
                }
                if let files, report.sharedBytes == 0 {
                    throw Failure("bench", "nothing is shared from \(files.folder): \(report.notShared.map { $0.sentence } ?? "?")")
                }
                codeBytes = max(codeBytes, report.sharedBytes)
            }
        }
        return [
            try row("a patch, code in one file for all", fixture, processes) { try applied($0, CodeFiles(folder: folder + "/code")) },
            try row("a patch, all in anonymous memory", fixture, processes) { try applied($0, nil) },
            try row("its code alone, anonymous", fixture, processes) {
                for target in $0 { try target.mapCode(bytes: codeBytes, inMemfd: false) }
            },
            try row("its code alone, in a memfd of each one's own", fixture, processes) {
                for target in $0 { try target.mapCode(bytes: codeBytes, inMemfd: true) }
            },
        ]
    }

    private static func row(
        _ kind: String, _ fixture: BenchFixture, _ processes: Int, _ change: ([BenchTarget]) throws -> Void
    ) throws -> MemoryRow {
        let targets = try (0..<processes).map { _ in try BenchTarget(fixture, threads: 1) }
        // What it touches by being asked anything is there before.
        for target in targets { _ = try target.settledReturns() }
        let before = try use(targets)
        try change(targets)
        let after = try use(targets)
        func each(_ field: KeyPath<Use, Int>) -> Double { Double(after[keyPath: field] - before[keyPath: field]) / Double(processes) }
        return MemoryRow(
            processes: processes, kind: kind, privateKiBEach: each(\.own), proportionalKiBEach: each(\.proportional),
            residentKiBEach: each(\.resident))
    }

    private static func use(_ targets: [BenchTarget]) throws -> Use {
        try targets.reduce(into: Use()) { sum, target in
            for line in try String(contentsOfFile: "/proc/\(target.id)/smaps_rollup", encoding: .utf8).split(separator: "\n") {
                guard let value = line.split(separator: " ").dropFirst().first.flatMap({ Int($0) }) else { continue }
                if line.hasPrefix("Private_") { sum.own += value }
                if line.hasPrefix("Pss:") { sum.proportional += value }
                if line.hasPrefix("Rss:") { sum.resident += value }
            }
        }
    }
}
