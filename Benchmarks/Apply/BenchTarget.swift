// The process whose pauses are measured, compiled by gcc when the benchmark starts, and the patch for its library.

import ELF
import Foundation
import Glibc
import LivePatch
import LivePatchBuilder
import ProcessControl

/// Program, library in two builds, and patch, in a folder that goes when `remove` is called.
struct BenchFixture {
    let folder: String
    let program: String
    let patch: LivePatch
    let patchPath: String

    init() throws {
        let sources = URL(fileURLWithPath: #filePath).deletingLastPathComponent().appendingPathComponent("Fixtures").path
        folder = FileManager.default.temporaryDirectory.appendingPathComponent("fother-bench-\(getpid())").path
        let common = ["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-g", "-pthread", "-Wl,--build-id"]
        var whole: [[UInt8]] = []
        for (side, define) in [("old", []), ("new", ["-DFIXED"])] {
            try FileManager.default.createDirectory(atPath: folder + "/" + side, withIntermediateDirectories: true)
            // A build ID of its own: another benchmark at the same time patches other processes. The note lies behind the code.
            _ = try ChildProcess.runChecked(
                common + define + [
                    "-shared", "-fPIC", "-Wl,-soname,libwork.so", "-Wl,--build-id=0x\(side == "old" ? "01" : "02")\(Self.hex(getpid()))",
                    "-o", folder + "/\(side)/libwork.so", sources + "/work.c",
                ])
            whole.append(try RegularFile.read(folder + "/\(side)/libwork.so"))
            _ = try ChildProcess.runChecked(["strip", "--strip-unneeded", folder + "/\(side)/libwork.so"])
        }
        program = folder + "/spinner"
        _ = try ChildProcess.runChecked(
            common + ["-o", program, sources + "/spinner.c", folder + "/old/libwork.so", "-Wl,-rpath,$ORIGIN/old"])
        var context = BuildContext(object: "libwork.so")
        (context.oldDebug, context.newDebug) = (whole[0], whole[1])
        let built = try build(
            old: RegularFile.read(folder + "/old/libwork.so"), new: RegularFile.read(folder + "/new/libwork.so"), context)
        guard case .patch(let file) = built.outcome, built.manifest.verdict == .pass else {
            throw Failure("bench", "no patch: \(built.manifest.findings.map(\.key))")
        }
        patchPath = folder + "/work.fother"
        try Data(file).write(to: URL(fileURLWithPath: patchPath))
        patch = try LivePatch(parsing: file, name: patchPath)
    }

    /// What was shared cannot be changed, and so not removed.
    func remove() {
        _ = try? ChildProcess.run(["chattr", "-R", "-i", folder + "/state"])
        try? FileManager.default.removeItem(atPath: folder)
    }

    private static func hex(_ number: Int32) -> String {
        let digits = String(number, radix: 16)
        return String(repeating: "0", count: 16 - digits.count) + digits
    }
}

/// One running spinner. See Fixtures/spinner.c.
struct BenchTarget {
    enum Command: UInt8 { case spin = 1, spinRealtime, cost, mapAnonymous, mapMemfd }

    let child: ChildProcess
    let handle: ProcessHandle
    let memory: ProcessMemory
    private let control: RuntimeAddress
    var id: ProcessID { child.id }

    init(_ fixture: BenchFixture, threads: Int) throws {
        child = try ChildProcess([fixture.program, "\(threads)"], input: .pipe, output: .pipe)
        guard let line = try child.readLine(), let address = UInt64(line) else { throw Failure("bench", "the spinner did not start.") }
        control = RuntimeAddress(address)
        handle = try ProcessHandle(child.id)
        memory = try handle.memory()
    }

    private func word(_ offset: Int, bytes: Int = 8) throws -> UInt64 {
        try memory.read(at: control + offset, count: bytes).reversed().reduce(0) { $0 << 8 | UInt64($1) }
    }
    private func done() throws -> UInt64 { try word(4, bytes: 4) }

    /// Has the spinner carry out one command. `during` runs while it is under way; a spin ends with it, the others by themselves.
    private func perform(_ command: Command, _ during: () throws -> Void) throws {
        let before = try done()
        try child.write([command.rawValue])
        if command == .spin || command == .spinRealtime {
            while try memory.read(at: control, count: 1) != [command.rawValue] { usleep(50) }
            try during()
            try memory.write([0], at: control)
        }
        while try done() == before { usleep(50) }
    }

    /// The longest time that the spinner saw pass between two readings of its clock while `body` ran, and how long that took.
    func gap(realtime: Bool = false, _ body: () throws -> Void) throws -> (gap: Double, wall: Double) {
        var wall = Duration.zero
        try perform(realtime ? .spinRealtime : .spin) {
            let start = ContinuousClock.now
            try body()
            wall = ContinuousClock.now - start
        }
        return (Double(try word(8)) / 1000, wall.microseconds)
    }

    /// What a call of the patched function costs now, in ns: the least of three batches.
    func callCost() throws -> Double {
        try perform(.cost) {}
        return Double(try word(16)) / 1000
    }

    /// Has it map so many bytes of code that it shares with nobody, and touch them.
    func mapCode(bytes: Int, inMemfd: Bool) throws {
        try memory.write((0..<8).map { UInt8(truncatingIfNeeded: bytes >> (8 * $0)) }, at: control + 40)
        try perform(inMemfd ? .mapMemfd : .mapAnonymous) {}
    }

    /// Answers that neither build gives.
    func wrongAnswers() throws -> UInt64 { try word(24) }

    /// Returns so far of calls that should wait for ever, when there have been no more for a while.
    func settledReturns() throws -> UInt64 {
        var last = try word(32)
        while true {
            usleep(5000)
            let now = try word(32)
            if now == last { return now }
            last = now
        }
    }
}

extension Duration {
    var microseconds: Double { Double(components.seconds) * 1e6 + Double(components.attoseconds / 1_000_000_000) / 1000 }
}
