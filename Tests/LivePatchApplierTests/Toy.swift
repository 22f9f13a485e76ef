// A small library in two builds, a patch from the first to the second, and a process that runs the first.

import ELF
import Foundation
import LivePatch
import LivePatchApplier
import LivePatchBuilder
import ProcessControl
import Testing

/// Everything in one folder, which goes with this value.
final class Toy: Sendable {
    static let fixtures = URL(fileURLWithPath: #filePath).deletingLastPathComponent().appendingPathComponent("Fixtures").path
    static let library = "libtoy.so.1"

    let folder: String
    let patch: LivePatch
    let patchPath: String

    /// `flags`: for the compiler, of both builds.
    init(_ flags: [String] = []) throws {
        folder = FileManager.default.temporaryDirectory.appendingPathComponent("fother-toy-\(UUID().uuidString)").path
        var whole: [[UInt8]] = []
        for side in ["old", "new"] {
            try FileManager.default.createDirectory(atPath: folder + "/" + side, withIntermediateDirectories: true)
            let path = folder + "/\(side)/" + Self.library
            _ = try ChildProcess.runChecked(
                ["gcc", "-g", "-O2", "-fPIC", "-shared", "-Wl,-soname,\(Self.library)", "-Wl,--build-id"]
                    + (side == "new" ? ["-DFIXED"] : []) + flags
                    + ["-o", path, Self.fixtures + "/toy.c"])
            whole.append(try RegularFile.read(path))
            _ = try ChildProcess.runChecked(["strip", "--strip-unneeded", path])
        }
        _ = try ChildProcess.runChecked(
            [
                "gcc", "-O2", "-o", folder + "/victim", Self.fixtures + "/victim.c", folder + "/old/" + Self.library, "-pthread",
                "-Wl,-rpath,$ORIGIN/old",
            ])
        var context = BuildContext(object: Self.library)
        (context.oldDebug, context.newDebug) = (whole[0], whole[1])
        let built = try build(
            old: RegularFile.read(folder + "/old/" + Self.library), new: RegularFile.read(folder + "/new/" + Self.library),
            context)
        guard case .patch(let file) = built.outcome, built.manifest.verdict == .pass else {
            throw Failure("test", "no patch: \(built.manifest.findings.map(\.key))")
        }
        patchPath = folder + "/toy.fother"
        try Data(file).write(to: URL(fileURLWithPath: patchPath))
        patch = try LivePatch(parsing: file, name: "toy.fother")
    }

    deinit { try? FileManager.default.removeItem(atPath: folder) }

    func start() throws -> Victim { try Victim([folder + "/victim"]) }

    /// What the process has of the patch, in one word.
    func state(of id: ProcessID) throws -> String {
        let patches = try ProcessView(id, held: { $0 == self.patch.id ? self.patch : nil }).patches
        guard let found = patches.first else { return "none" }
        switch found.state {
        case .patched: return "patched"
        case .retired: return "retired"
        case .unfinished: return "unfinished"
        case .orphaned: return "orphaned"
        case .interrupted: return "interrupted"
        case .couldNotTell(let failure): return failure.code
        }
    }
}

/// A running victim, asked line by line.
struct Victim: Sendable {
    let child: ChildProcess
    var id: ProcessID { child.id }

    init(_ arguments: [String]) throws {
        child = try ChildProcess(arguments, input: .pipe, output: .pipe)
        #expect(try child.readLine() == "ready")
    }

    func ask(_ question: String) throws -> String {
        try child.write(question + "\n")
        return try child.readLine(timeout: .seconds(20)) ?? "(gone)"
    }
}

extension ProcessOutcome {
    /// In one word, for expectations.
    var word: String {
        switch self {
        case .patched: "patched"
        case .alreadyPatched: "already patched"
        case .reverted: "reverted"
        case .notPatched: "not patched"
        case .notAffected: "not affected"
        case .refused(let f): f.code
        case .blocked: "blocked"
        case .couldNotTell(let f): "could not tell: \(f.code)"
        case .gone: "gone"
        }
    }
}
