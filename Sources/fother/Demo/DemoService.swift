// The demonstration's own small world: two builds of a library made by gcc, a service that runs the first, its guests.
// Everything lives in one temporary folder and ends with this value.

import ELF
import Foundation
import ProcessControl

final class DemoService {
    static let library = "libguestbook.so.1"
    static let attack = "ECHO 300 hi"
    static let secret = "my secret is 42"

    let folder: URL
    private(set) var server: ChildProcess?
    private(set) var alice: ChildProcess?
    private var port = ""

    /// Compiles everything. Failures: `demo-sources-missing`, and those of the tools.
    init() throws {
        let sources = try Self.sources()
        folder = FileManager.default.temporaryDirectory.appendingPathComponent("fother-demo-\(ProcessID.own)")
        for side in ["old", "new"] {
            try FileManager.default.createDirectory(at: folder.appendingPathComponent(side), withIntermediateDirectories: true)
            let output = path(side, Self.library)
            _ = try ChildProcess.runChecked(
                ["gcc", "-g", "-O2", "-fPIC", "-shared", "-Wl,-soname,\(Self.library)", "-Wl,--build-id"]
                    + (side == "new" ? ["-DFIXED"] : [])
                    + ["-o", output, sources + "/libguestbook.c", "-pthread"])
            _ = try ChildProcess.runChecked(["objcopy", "--only-keep-debug", output, output + ".debug"])
            _ = try ChildProcess.runChecked(["strip", "--strip-unneeded", output])
        }
        _ = try ChildProcess.runChecked(
            [
                "gcc", "-O2", "-o", path("guestbook"), sources + "/guestbook.c", path("old", Self.library), "-pthread",
                "-Wl,-rpath,$ORIGIN/old",
            ])
        _ = try ChildProcess.runChecked(["strip", path("guestbook")])
        _ = try ChildProcess.runChecked(["gcc", "-O2", "-o", path("visitor"), sources + "/visitor.c"])
    }

    deinit { remove() }

    /// Ends the processes and removes the folder; doing it twice is harmless.
    func remove() {
        alice = nil
        server = nil
        try? FileManager.default.removeItem(at: folder)
    }

    private func path(_ parts: String...) -> String { parts.reduce(folder) { $0.appendingPathComponent($1) }.path }

    func build(_ side: String) throws -> [UInt8] { try RegularFile.read(path(side, Self.library)) }

    /// The debug information that was stripped off, as distributions keep it.
    func debug(_ side: String) throws -> [UInt8] { try RegularFile.read(path(side, Self.library + ".debug")) }

    /// The C sources: beside an installed program, or in the checkout it was built from.
    private static func sources() throws(Failure) -> String {
        let program = URL(fileURLWithPath: (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")) ?? "")
        let beside = program.deletingLastPathComponent()
        let candidates = [
            beside.appendingPathComponent("../share/fother/demo"),
            beside.appendingPathComponent("../../../Fixtures/demo"),
        ].map { $0.standardizedFileURL.path }
        guard let found = candidates.first(where: { FileManager.default.fileExists(atPath: $0 + "/libguestbook.c") }) else {
            throw Failure(
                "demo-sources-missing", "the demonstration's C sources are not beside the program.", at: candidates.joined(separator: ", "),
                remedy: "Run it from a checkout, or install with: make install")
        }
        return found
    }

    /// Starts the service and a guest who stays.
    func start() throws {
        let server = try ChildProcess([path("guestbook")], input: .pipe, output: .pipe)
        self.server = server
        guard let line = try server.readLine(), line.hasPrefix("listening ") else {
            throw Failure("demo-failed", "the service did not start.", at: "demo")
        }
        port = String(line.dropFirst("listening ".count))
        let alice = try ChildProcess([path("visitor"), port, "guest", "alice", Self.secret], input: .pipe, output: .pipe)
        self.alice = alice
        guard try alice.readLine() == "signed in" else { throw Failure("demo-failed", "alice could not sign in.", at: "demo") }
        _ = try longestGap()
    }

    var serverID: ProcessID { server?.id ?? ProcessID(0) }

    /// One request on a connection of its own; the answer as printable text.
    func ask(_ request: String) throws -> String {
        try ChildProcess.runChecked([path("visitor"), port, "ask", request]).outputText.trimmingCharacters(in: .newlines)
    }

    /// Longest gap that the service's own clock watcher has seen since this was asked last.
    func longestGap() throws -> Duration { .nanoseconds(Int64(try answer(server, "pause\n")) ?? 0) }

    /// Waits of the service that ended early.
    func interruptions() throws -> Int { Int(try answer(server, "interrupts\n")) ?? -1 }

    /// What alice counted: requests in her one session, wrong or missing answers.
    func aliceCounts() throws -> (requests: Int, errors: Int) {
        let words = try answer(alice, "\n").split(separator: " ").compactMap { Int($0) }
        guard words.count == 3 else { throw Failure("demo-failed", "alice lost her session.", at: "demo") }
        return (words[0], words[1])
    }

    private func answer(_ child: ChildProcess?, _ question: String) throws -> String {
        guard let child else { return "" }
        try child.write(question)
        return try child.readLine() ?? ""
    }
}
