// The C programs of these tests (Fixtures/network), compiled by gcc once a run.

import ELF
import Foundation
import ProcessControl

final class NetworkPrograms: Sendable {
    static let sources = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent().deletingLastPathComponent().appendingPathComponent("Fixtures/network").path
    static func get() throws -> NetworkPrograms { try shared.get() }
    private static let shared = Result { try NetworkPrograms() }

    private let folder: TemporaryFolder

    func path(_ name: String) -> String { folder.path + "/" + name }

    private init() throws {
        folder = try TemporaryFolder("network-programs")
        for file in try FileManager.default.contentsOfDirectory(atPath: Self.sources) where file.hasSuffix(".c") {
            _ = try ChildProcess.runChecked(
                ["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", path(String(file.dropLast(2))), Self.sources + "/" + file])
        }
    }
}

/// Removed with the last reference, and when this process exits.
final class TemporaryFolder: Sendable {
    let path: String

    init(_ name: String) throws {
        path = FileManager.default.temporaryDirectory.appendingPathComponent("fother-\(name)-\(UUID().uuidString)").path
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
        Leftovers.shared.add(path)
    }
    deinit { try? FileManager.default.removeItem(atPath: path) }

    func write(_ name: String, _ text: String) throws -> String {
        try text.write(toFile: path + "/" + name, atomically: true, encoding: .utf8)
        return path + "/" + name
    }
}

/// Tests end with exit(), which runs no deinit.
private final class Leftovers: @unchecked Sendable {
    static let shared = Leftovers()
    private var paths: [String] = []
    private let lock = NSLock()

    private init() { atexit { for path in Leftovers.shared.paths { try? FileManager.default.removeItem(atPath: path) } } }
    func add(_ path: String) { lock.withLock { paths.append(path) } }
}
