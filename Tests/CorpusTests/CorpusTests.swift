// Real packages and real fixes, end to end through the program: what the distribution ships is what must work.
// They need root, the corpus beside the checkout, and the distribution's archives; without one they skip and say so.

import ELF
import Foundation
import ProcessControl
import Testing

/// What these tests need, looked up once.
enum Surroundings {
    /// The checkout: this file is in Tests/CorpusTests.
    static let checkout = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent()
    static let corpus = checkout.appendingPathComponent("../shared/corpus/cases").standardizedFileURL.path
    static let hasCorpus = FileManager.default.fileExists(atPath: corpus)
    static let isRoot = geteuid() == 0

    /// The program that was built together with the tests.
    static let program: String = {
        let tests = URL(fileURLWithPath: CommandLine.arguments[0])
        return tests.deletingLastPathComponent().appendingPathComponent("fother").path
    }()

    /// A folder for everything the tests make; it goes when they end.
    static let state: String = {
        atexit { try? FileManager.default.removeItem(atPath: Surroundings.folder) }
        return folder
    }()
    static let folder = FileManager.default.temporaryDirectory.appendingPathComponent("fother-corpus-tests-\(ProcessID.own)").path

    static func fother(_ arguments: String...) throws -> ChildOutput { try fother(arguments) }

    static func fother(_ arguments: [String]) throws -> ChildOutput {
        let environment = ProcessInfo.processInfo.environment.merging(["FOTHER_STATE": state, "FOTHER_CACHE": state + "/cache"]) { $1 }
        return try ChildProcess.run([program] + arguments, environment: environment.map { "\($0.key)=\($0.value)" }, timeout: .seconds(600))
    }
}

@Suite(.serialized, .enabled(if: Surroundings.isRoot, "patching other processes needs root"))
struct CorpusTests {
    @Test(
        "cJSON built from source with and without its fix: the running trigger turns from vulnerable to fixed and back",
        .enabled(if: Surroundings.hasCorpus, "the corpus is not beside the checkout"))
    func cJSONFromSource() throws {
        let environment = ProcessInfo.processInfo.environment.merging([
            "FOTHER": Surroundings.program, "FOTHER_STATE": Surroundings.state, "CASES_WORK": Surroundings.state + "/cases",
        ]) { $1 }
        let result = try ChildProcess.run(
            [Surroundings.checkout.path + "/scripts/cases", "CVE-2023-50472"], environment: environment.map { "\($0.key)=\($0.value)" },
            directory: Surroundings.checkout.path, timeout: .seconds(900))
        guard !result.outputText.contains("cannot prepare") else {
            try Test.cancel("the archive did not give the source package, or its build tools")
        }
        #expect(result.outputText.hasPrefix("ok  CVE-2023-50472"), "\(result.outputText)")
    }

    /// The archive drops versions as security updates replace each other.
    private func pair(_ package: String, _ old: String, _ new: String, _ more: String...) throws -> (ChildOutput, String) {
        let file = Surroundings.state + "/\(package).fother"
        try FileManager.default.createDirectory(atPath: Surroundings.state, withIntermediateDirectories: true)
        let result = try Surroundings.fother("build", "\(package)=\(old)", "\(package)=\(new)", "-o", file, "--json")
        if result.errorText.contains("version-not-found") || result.errorText.contains("tool-failed") {
            try Test.cancel("the archive does not give \(package) in both versions: \(result.errorText)")
        }
        return (result, file)
    }

    @Test("the libevent update that grows a structure is refused with the layout code, and writes no file")
    func libeventIsRefused() throws {
        let (result, file) = try pair("libevent-2.1-7", "2.1.12-stable-8", "2.1.12-stable-8+deb12u1")
        #expect(result.status == .exited(2))
        #expect(result.outputText.contains("\"layout-changed\""))
        #expect(!FileManager.default.fileExists(atPath: file))
    }

    @Test("the libmodbus update that changes the signature of a slot in a live table is refused by name")
    func libmodbusIsRefused() throws {
        let (result, file) = try pair("libmodbus5", "3.1.6-2.1", "3.1.6-2.1+deb12u1")
        #expect(result.status == .exited(2))
        #expect(result.outputText.contains("\"signature-changed\""))
        #expect(!FileManager.default.fileExists(atPath: file))
    }

    /// The archive may have dropped the sources of a version: then nobody has looked at the types, and a person must say so.
    private static func accepting(_ result: ChildOutput, object: String) throws -> [String] {
        if result.status == .exited(0) { return [] }
        #expect(result.status == .exited(2), "\(result.outputText)\(result.errorText)")
        #expect(result.outputText.components(separatedBy: "\"remedy\"").count == 2, "more than one finding: \(result.outputText)")
        #expect(result.outputText.contains("\"layout-unproved\""))
        return ["--accept", "layout-unproved:\(object)", "--because", "its sources are read here by hand"]
    }
    private static let libpng = "libpng16.so.16.39.0"

    @Test("libpng's update is applied to a program that decodes and encodes with it, and no picture goes wrong")
    func libpngUnderWork() throws {
        let (old, new) = ("1.6.39-2+deb12u5", "1.6.39-2+deb12u6")
        let (result, patch) = try pair("libpng16-16", old, new)
        let accepting = try Self.accepting(result, object: Self.libpng)
        #expect(result.outputText.contains("CVE-2026-46675"))

        let debs = try FileManager.default.contentsOfDirectory(atPath: Surroundings.state + "/cache/debs")
        let deb = try #require(debs.first { $0.contains("libpng16-16_\(old)_") })
        let root = Surroundings.state + "/libpng"
        _ = try ChildProcess.runChecked(["dpkg-deb", "--extract", Surroundings.state + "/cache/debs/" + deb, root])
        let library = root + "/usr/lib/x86_64-linux-gnu"
        let source = Surroundings.checkout.path + "/Tests/CorpusTests/Fixtures/pictures.c"
        _ = try ChildProcess.runChecked([
            "gcc", "-O2", "-o", root + "/pictures", source, library + "/libpng16.so.16", "-Wl,-rpath,\(library)",
            "-Wl,--allow-shlib-undefined",
        ])

        let painter = try ChildProcess([root + "/pictures"], output: .pipe)
        func rounds(_ count: Int) throws {
            for _ in 0..<count { #expect(try painter.readLine() == "good 78f50978") }
        }
        try rounds(100)
        let pid = "\(painter.id)"
        for _ in 0..<5 {
            let applied = try Surroundings.fother(["apply", patch, "--pid", pid] + accepting)
            #expect(applied.status == .exited(0), "\(applied.outputText)")
            #expect(applied.outputText.contains("patched"))
            try rounds(200)
            #expect(try Surroundings.fother("ps", "--pid", pid).outputText.contains("patched, read back"))
            let reverted = try Surroundings.fother("revert", patch, "--pid", pid)
            #expect(reverted.status == .exited(0), "\(reverted.outputText)")
            try rounds(200)
        }
    }

    @Test("every function of libpng moved and none changed: the program paints the same pictures, before, during and after")
    func everyFunctionMoved() throws {
        let root = Surroundings.state + "/libpng", library = root + "/usr/lib/x86_64-linux-gnu/libpng16.so.16"
        try #require(FileManager.default.fileExists(atPath: root + "/pictures"), "libpngUnderWork prepares it")
        let patch = Surroundings.state + "/moved.fother"
        let built = try Surroundings.fother("build", "--self", library, "-o", patch)
        #expect(built.status == .exited(0), "\(built.outputText)")
        let painter = try ChildProcess([root + "/pictures"], output: .pipe)
        func rounds(_ count: Int) throws {
            for _ in 0..<count { #expect(try painter.readLine() == "good 78f50978") }
        }
        try rounds(50)
        for _ in 0..<3 {
            let applied = try Surroundings.fother("apply", patch, "--pid", "\(painter.id)")
            #expect(applied.status == .exited(0), "\(applied.outputText)")
            try rounds(300)
            #expect(try Surroundings.fother("revert", patch, "--pid", "\(painter.id)").status == .exited(0))
            try rounds(100)
        }
    }

    @Test("a patch that shares functions with an older one replaces it in one stop, whichever of them has the jumps")
    func replacing() throws {
        let root = Surroundings.state + "/libpng", moved = Surroundings.state + "/moved.fother",
            fix = Surroundings.state + "/libpng16-16.fother"
        try #require(FileManager.default.fileExists(atPath: moved), "everyFunctionMoved prepares it")
        let painter = try ChildProcess([root + "/pictures"], output: .pipe)
        let pid = "\(painter.id)"
        func rounds(_ count: Int) throws {
            for _ in 0..<count { #expect(try painter.readLine() == "good 78f50978") }
        }
        /// How many patches `ps` reads back as in force.
        func inForce() throws -> Int {
            try Surroundings.fother("ps", "--pid", pid).outputText.components(separatedBy: "patched, read back").count - 1
        }
        try rounds(10)
        let inspected = try Surroundings.fother("inspect", fix, "--json")
        let accepting =
            inspected.outputText.contains("layout-unproved") ? ["--accept", "layout-unproved:\(Self.libpng)", "--because", "a test"] : []
        for patch in [fix, moved, fix] {
            let applied = try Surroundings.fother(["apply", patch, "--pid", pid] + (patch == fix ? accepting : []))
            #expect(applied.status == .exited(0), "\(applied.outputText)")
            // The moved library calls its own copies: with both in force the fix would be reported and never run.
            #expect(try inForce() == 1)
            try rounds(100)
        }
        #expect(try Surroundings.fother("revert", moved, "--pid", pid).outputText.contains("not patched"))
        #expect(try Surroundings.fother("revert", fix, "--pid", pid).outputText.contains("reverted"))
        #expect(try inForce() == 0)
        try rounds(100)
    }

    @Test("the build that a process runs can be taken from the process, and compared with the archive's")
    func buildFromAProcess() throws {
        let (_, file) = try pair("libpng16-16", "1.6.39-2+deb12u5", "1.6.39-2+deb12u6")
        let root = Surroundings.state + "/libpng"
        try #require(FileManager.default.fileExists(atPath: root + "/pictures"), "libpngUnderWork prepares it")
        let painter = try ChildProcess([root + "/pictures"], output: .pipe)
        _ = try painter.readLine()
        let result = try Surroundings.fother(
            "build", "pid:\(painter.id):libpng16.so.16", "libpng16-16=1.6.39-2+deb12u6", "-o", file + ".again", "--json")
        // Nobody knows which package a process's file comes from, so there are no sources to look at.
        _ = try Self.accepting(result, object: Self.libpng)
    }
}
