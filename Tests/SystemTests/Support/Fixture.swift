// The program that is patched in these tests, compiled by gcc as distributions do, and the patch for its library.

import ELF
import Foundation
import LivePatch
import LivePatchBuilder
import ProcessControl
import Synchronization

/// libtarget.so in two builds and the program that uses the old one, in a folder that goes with this value.
final class Fixture: Sendable {
    static let sources = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent().deletingLastPathComponent().appendingPathComponent("Fixtures/targets").path

    let folder: String
    let program: String
    /// The same program without a loader or libraries: there is no libc.so to lean on.
    let staticProgram: String
    let patch: LivePatch
    let patchPath: String

    /// Tests end with exit(), which runs no deinit.
    static func removeAtExit(_ folder: String) { atexitRemovals.withLock { $0.append(folder) } }

    static func get() throws -> Fixture { try shared.get() }

    private static let common = [
        "-O2", "-Wall", "-Wextra", "-Werror", "-fstack-protector-strong", "-pthread", "-Wl,--build-id", "-s",
    ]
    private let programs = Mutex<[String: String]>([:])

    /// Another program of Fixtures/targets that uses the old library, by its file's name; compiled when it is first asked for.
    func other(_ name: String, _ flags: [String] = []) throws -> String {
        let key = ([name] + flags).joined(separator: " ")
        if let path = programs.withLock({ $0[key] }) { return path }
        let path = folder + "/old/" + name.prefix { $0 != "." } + flags.joined(), isCPlusPlus = name.hasSuffix(".cc")
        _ = try ChildProcess.runChecked(
            [isCPlusPlus ? "g++" : "gcc"] + Self.common + flags + ["-I", Self.sources, "-o", path, Self.sources + "/" + name]
                + (name.hasPrefix("loading") ? ["-ldl"] : ["-L", folder + "/old", "-ltarget", "-Wl,-rpath,$ORIGIN:\(folder)/old"]))
        programs.withLock { $0[key] = path }
        return path
    }
    private static let shared = Result { try Fixture() }

    private init() throws {
        folder = FileManager.default.temporaryDirectory.appendingPathComponent("fother-targets-\(UUID().uuidString)").path
        Self.removeAtExit(folder)
        let common = Self.common + ["-I", Self.sources]
        for (side, define) in [("old", []), ("new", ["-DFIXED"])] {
            try FileManager.default.createDirectory(atPath: folder + "/" + side, withIntermediateDirectories: true)
            _ = try ChildProcess.runChecked(
                ["gcc"] + common + define + ["-shared", "-fPIC", "-o", folder + "/\(side)/libtarget.so", Self.sources + "/target.c"])
        }
        program = folder + "/old/victim"
        _ = try ChildProcess.runChecked(
            ["gcc"] + common + ["-o", program, Self.sources + "/victim.c", "-L", folder + "/old", "-ltarget", "-Wl,-rpath,$ORIGIN"])
        staticProgram = folder + "/static-victim"
        _ = try ChildProcess.runChecked(
            ["gcc"] + common + ["-static", "-o", staticProgram, Self.sources + "/victim.c", Self.sources + "/target.c"])
        let result = try build(
            old: RegularFile.read(folder + "/old/libtarget.so"), new: RegularFile.read(folder + "/new/libtarget.so"),
            BuildContext(object: "libtarget.so"))
        guard case .patch(let file) = result.outcome else {
            throw Failure("fixture", "no patch: \(result.manifest.findings.map(\.key))")
        }
        patchPath = folder + "/target.fother"
        try Data(file).write(to: URL(fileURLWithPath: patchPath))
        patch = try LivePatch(parsing: file, name: patchPath)
    }
}

private let atexitRemovals: Removals = {
    atexit { for folder in atexitRemovals.withLock({ $0 }) { try? FileManager.default.removeItem(atPath: folder) } }
    return Removals()
}()

private final class Removals: @unchecked Sendable {
    private var folders: [String] = []
    private let lock = NSLock()
    func withLock<R>(_ body: (inout [String]) -> R) -> R { lock.withLock { body(&folders) } }
}
