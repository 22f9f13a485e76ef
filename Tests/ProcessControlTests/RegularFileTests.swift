// Files that a process can choose: a pipe, a device, a link out of its root. None may block or mislead who reads it as root.

import ELF
import Foundation
import ProcessControl
import Testing

@Suite final class RegularFileTests {
    private let folder = FileManager.default.temporaryDirectory.appendingPathComponent("fother-files-\(UUID().uuidString)").path

    init() throws {
        try FileManager.default.createDirectory(atPath: folder + "/root/etc", withIntermediateDirectories: true)
        try "inside".write(toFile: folder + "/root/etc/name", atomically: false, encoding: .utf8)
        try "outside".write(toFile: folder + "/secret", atomically: false, encoding: .utf8)
    }
    deinit { try? FileManager.default.removeItem(atPath: folder) }

    private func link(_ path: String, to target: String) throws {
        try FileManager.default.createSymbolicLink(atPath: folder + path, withDestinationPath: target)
    }

    private func inRoot(_ path: String) throws -> String {
        String(decoding: try RegularFile.read(path, in: folder + "/root"), as: UTF8.self)
    }

    private func code(_ body: () throws -> Any) -> String {
        do {
            return "\(try body())"
        } catch { return (error as? Failure)?.code ?? "\(error)" }
    }

    @Test func anOrdinaryFileIsRead() throws {
        #expect(try inRoot("/etc/name") == "inside")
        #expect(try RegularFile.prefix("/etc/name", in: folder + "/root", count: 3) == Array("ins".utf8))
        #expect(try RegularFile.read(folder + "/secret") == Array("outside".utf8))
    }

    @Test("a pipe is refused at once; opening it would wait for a writer for ever")
    func pipe() throws {
        _ = try ChildProcess.runChecked(["mkfifo", folder + "/root/pipe"])
        #expect(code { try inRoot("/pipe") } == "file-unreadable")
        #expect(code { try RegularFile.read(folder + "/root/pipe") } == "file-unreadable")
        #expect(code { try RegularFile.prefix("/pipe", in: folder + "/root", count: 4) } == "file-unreadable")
    }

    @Test("a device and a folder are no files", arguments: ["/dev/zero", "/dev"])
    func device(_ path: String) {
        #expect(code { try RegularFile.read(path) } == "file-unreadable")
    }

    @Test("a link out of the root stays inside it, as the process itself would follow it")
    func links() throws {
        try link("/root/etc/absolute", to: "/etc/name")
        try link("/root/etc/upward", to: "../../secret")
        try link("/root/etc/beyond", to: folder + "/secret")
        try link("/root/away", to: folder)
        #expect(try inRoot("/etc/absolute") == "inside")
        #expect(code { try inRoot("/etc/upward") } == "file-unreadable")
        #expect(code { try inRoot("/etc/beyond") } == "file-unreadable")
        #expect(code { try inRoot("/away/secret") } == "file-unreadable")
        #expect(code { try inRoot("/../secret") } == "file-unreadable")
    }

    @Test func whatIsTooLargeIsNotReadInPart() throws {
        #expect(code { try RegularFile.read("/etc/name", in: folder + "/root", limitBytes: 5) } == "limit-exceeded")
        #expect(try RegularFile.read("/etc/name", in: folder + "/root", limitBytes: 6).count == 6)
    }
}
