// The programs of the tests of unwinding, and the patch for the library they use.

import ELF
import Foundation
import LivePatch
import LivePatchApplier
import LivePatchBuilder
import ProcessControl

/// A library in two builds, stripped, and a program that uses the old one and keeps its names.
final class FramesFixture: Sendable {
    static let sources = Fixture.sources + "/../frames"

    let folder: String
    let program: String
    /// A library with what looks like another unwinder.
    let decoy: String
    let patch: LivePatch
    let patchPath: String
    /// For another function of the same old build.
    let other: LivePatch?

    /// A C library and a C program: libgcc_s is there only when somebody loads it.
    static func c() throws -> FramesFixture { try inC.get() }
    private static let inC = Result { try FramesFixture("gcc", library: "frames.c", program: "walker.c") }

    /// The same in C++, where exceptions are thrown from, through and caught in the library.
    static func cxx() throws -> FramesFixture { try inCxx.get() }
    private static let inCxx = Result { try FramesFixture("g++", library: "thrower.cc", program: "catcher.cc") }

    private init(_ compiler: String, library: String, program source: String) throws {
        folder = FileManager.default.temporaryDirectory.appendingPathComponent("fother-frames-\(UUID().uuidString)").path
        Fixture.removeAtExit(folder)
        let common = ["-O2", "-Wall", "-Wextra", "-Werror", "-pthread", "-Wl,--build-id", "-I", Self.sources]
        for (side, define) in [("old", []), ("new", ["-DFIXED"]), ("other", ["-DOTHER"])] {
            try FileManager.default.createDirectory(atPath: folder + "/" + side, withIntermediateDirectories: true)
            _ = try ChildProcess.runChecked(
                [compiler] + common + define + [
                    "-s", "-shared", "-fPIC", "-o", folder + "/\(side)/libframes.so", Self.sources + "/" + library,
                ])
        }
        program = folder + "/old/program"
        _ = try ChildProcess.runChecked(
            [compiler, "-fno-optimize-sibling-calls"] + common + [
                "-o", program, Self.sources + "/" + source, "-L", folder + "/old", "-lframes", "-Wl,-rpath,$ORIGIN",
            ])
        decoy = folder + "/decoy.so"
        _ = try ChildProcess.runChecked(["gcc"] + common + ["-shared", "-fPIC", "-o", decoy, Self.sources + "/decoy.c"])
        patchPath = folder + "/frames.fother"
        guard let file = try Self.patch(folder, "new") else { throw Failure("fixture", "the builds do not differ.") }
        try Data(file).write(to: URL(fileURLWithPath: patchPath))
        patch = try LivePatch(parsing: file, name: patchPath)
        other = try Self.patch(folder, "other").map { try LivePatch(parsing: $0, name: "other") }
    }
}

extension FramesFixture {
    /// Nil when the builds do not differ.
    private static func patch(_ folder: String, _ side: String) throws -> [UInt8]? {
        let result = try build(
            old: RegularFile.read(folder + "/old/libframes.so"), new: RegularFile.read(folder + "/\(side)/libframes.so"),
            BuildContext(object: "libframes.so"))
        switch result.outcome {
        case .patch(let file): return file
        case .nothingToDo: return nil
        case .refused: throw Failure("fixture", "no patch: \(result.manifest.findings)")
        }
    }
}

/// A process with such a library; ended, whatever happens, when the last reference goes.
final class Walker: Sendable {
    let fixture: FramesFixture
    let child: ChildProcess
    var id: ProcessID { child.id }
    var patch: LivePatch { fixture.patch }

    init(_ fixture: FramesFixture, _ arguments: String...) throws {
        self.fixture = fixture
        child = try ChildProcess([fixture.program] + arguments, input: .pipe, output: .pipe)
        guard try child.readLine() == "ready" else { throw Failure("fixture", "the program did not start.") }
    }

    func ask(_ question: String) throws -> String {
        try child.write(question + "\n")
        guard let answer = try child.readLine() else {
            throw Failure("victim-died", "\(try child.wait(timeout: .seconds(5)))", at: question)
        }
        return answer
    }

    var view: ProcessView { get throws { try ProcessView(id) { $0 == self.patch.id ? self.patch : nil } } }
}
