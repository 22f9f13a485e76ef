// The program as an operator and a script meet it: exit codes, the keys of its JSON, what it says when it declines.

import ELF
import Foundation
import ProcessControl
import Testing

/// Two builds of a library whose change leaves one finding to a person: an allocation has another size.
final class Shop {
    let folder = FileManager.default.temporaryDirectory.appendingPathComponent("fother-program-\(UUID().uuidString)").path
    static let program = URL(fileURLWithPath: CommandLine.arguments[0]).deletingLastPathComponent().appendingPathComponent("fother").path

    init() throws {
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        try library("old", "32", "n")
        try library("new", "32", "n + 1")
        try library("bigger", "48", "n + 1")
        try """
        #include <unistd.h>
        int shop_price(int);
        int main(void) { char c; while (read(0, &c, 1) == 1) { c = '0' + shop_price(3); write(1, &c, 1); write(1, "\\n", 1); } return 0; }
        """.write(toFile: folder + "/main.c", atomically: true, encoding: .utf8)
        _ = try ChildProcess.runChecked([
            "gcc", "-O2", "-w", "-o", folder + "/main", folder + "/main.c", folder + "/libold.so", "-Wl,-rpath,\(folder)",
        ])
    }
    deinit { try? FileManager.default.removeItem(atPath: folder) }

    private func library(_ name: String, _ size: String, _ result: String) throws {
        try """
        #include <stdlib.h>
        int shop_price(int n) { int *p = malloc(\(size)); if (!p) return 0; p[1] = \(result); n = p[1]; free(p); return n; }
        int shop_sum(int n) { int s = 0; for (int i = 0; i < n; i++) s += shop_price(i); return s; }
        """.write(toFile: folder + "/\(name).c", atomically: true, encoding: .utf8)
        _ = try ChildProcess.runChecked([
            "gcc", "-g", "-O2", "-fPIC", "-shared", "-fno-builtin", "-Wl,--build-id", "-Wl,-soname,libold.so", "-o",
            folder + "/lib\(name).so",
            folder + "/\(name).c",
        ])
    }

    func fother(_ arguments: String...) throws -> ChildOutput { try fother(arguments) }

    func fother(_ arguments: [String]) throws -> ChildOutput {
        let environment = ProcessInfo.processInfo.environment.merging([
            "FOTHER_STATE": folder + "/state", "FOTHER_CACHE": folder + "/cache",
        ]) { $1 }
        return try ChildProcess.run([Self.program] + arguments, environment: environment.map { "\($0.key)=\($0.value)" })
    }

    func json(_ output: ChildOutput) throws -> [String: Any] {
        try #require(try JSONSerialization.jsonObject(with: Data(output.output)) as? [String: Any], "\(output.outputText)")
    }

    func path(_ name: String) -> String { folder + "/" + name }
}

@Suite(.serialized) struct ProgramTests {
    private let shop: Shop
    init() throws { shop = try Shop() }

    @Test("bad input says code, place and remedy on standard error, and exits 1")
    func badInput() throws {
        for (arguments, code) in [
            (["build", "/nowhere", shop.path("libnew.so")], "input-not-found"),
            (["inspect", shop.path("libnew.so")], "not-a-patch"),
            (["inspect", shop.path("main.c")], "not-elf"),
            (["revert", "abcdef012345"], "patch-not-held"),
        ] {
            let result = try shop.fother(arguments)
            #expect(result.status == .exited(1), "\(arguments) \(result.outputText)\(result.errorText)")
            #expect(result.errorText.contains("[\(code)]"), "\(result.errorText)")
        }
        #expect(try shop.fother("build", shop.path("libold.so")).status == .exited(64))
    }

    @Test("build, inspect and the dry run print JSON with a schema and the documented keys")
    func schemas() throws {
        let built = try shop.fother("build", shop.path("libold.so"), shop.path("libnew.so"), "-o", shop.path("fix.fother"), "--json")
        #expect(built.status == .exited(0), "\(built.outputText)\(built.errorText)")
        let report = try shop.json(built)
        #expect(report["schema"] as? String == "fother.build/1")
        let result = try #require((report["results"] as? [[String: Any]])?.first)
        #expect(result["outcome"] as? String == "patch")
        #expect(Set(result.keys) == ["file", "id", "manifest", "object", "outcome", "statistics"])

        let inspected = try shop.json(shop.fother("inspect", shop.path("fix.fother"), "--json"))
        #expect(Set(inspected.keys) == ["id", "manifest", "schema"])
        #expect(inspected["id"] as? String == result["id"] as? String)
        let manifest = try #require(inspected["manifest"] as? [String: Any])
        #expect(
            manifest["verdict"] as? String == "pass" && manifest["evidence"] as? [String] == ["binary", "source: absent", "dwarf: agrees"])

        let nothing = try shop.fother("build", shop.path("libold.so"), shop.path("libold.so"), "--json")
        #expect(nothing.status == .exited(0))
    }

    @Test(
        "a call under way: apply exits 2 until it has ended, revert 0, since every new call runs what was asked for",
        .enabled(if: geteuid() == 0, "needs root"))
    func underWay() throws {
        for (side, result) in [("old", "n"), ("new", "n + 1")] {
            try """
            #include <unistd.h>
            int wait_price(int n) { char c; return read(0, &c, 1) == 1 ? \(result) : -1; }
            """.write(toFile: shop.path("wait.c"), atomically: true, encoding: .utf8)
            try FileManager.default.createDirectory(atPath: shop.path(side), withIntermediateDirectories: true)
            _ = try ChildProcess.runChecked([
                "gcc", "-g", "-O2", "-fPIC", "-shared", "-Wl,--build-id", "-Wl,-soname,libwait.so", "-o", shop.path("\(side)/libwait.so"),
                shop.path("wait.c"),
            ])
        }
        try """
        #include <stdio.h>
        int wait_price(int);
        int main(void) { int n; puts("ready"); do { fflush(stdout); n = wait_price(3); printf("%d\\n", n); } while (n >= 0); return 0; }
        """.write(toFile: shop.path("waiter.c"), atomically: true, encoding: .utf8)
        _ = try ChildProcess.runChecked([
            "gcc", "-O2", "-o", shop.path("waiter"), shop.path("waiter.c"), shop.path("old/libwait.so"), "-Wl,-rpath,\(shop.path("old"))",
        ])
        let patch = shop.path("wait.fother")
        let built = try shop.fother("build", shop.path("old/libwait.so"), shop.path("new/libwait.so"), "-o", patch)
        #expect(built.status == .exited(0), "\(built.outputText)\(built.errorText)")
        let child = try ChildProcess([shop.path("waiter")], input: .pipe, output: .pipe), pid = "\(child.id)"
        #expect(try child.readLine() == "ready")
        func finishing(_ output: ChildOutput) throws -> Int {
            let line = try #require((try shop.json(output)["processes"] as? [[String: Any]])?.first)
            return (line["finishing"] as? [String])?.count ?? 0
        }
        let applied = try shop.fother("apply", patch, "--pid", pid, "--json")
        #expect(applied.status == .exited(2), "\(applied.outputText)\(applied.errorText)")
        #expect(try finishing(applied) == 1)
        #expect(try shop.fother("apply", patch, "--pid", pid).status == .exited(2), "it is still so")
        try child.write("x")
        #expect(try child.readLine() == "3", "the call that was under way")
        #expect(try shop.fother("apply", patch, "--pid", pid).status == .exited(0))
        let reverted = try shop.fother("revert", patch, "--pid", pid, "--json")
        #expect(reverted.status == .exited(0), "\(reverted.outputText)\(reverted.errorText)")
        #expect(try finishing(reverted) == 1)
        try child.write("xx")
        #expect(try child.readLine() == "4", "the call that was under way")
        #expect(try child.readLine() == "3")
    }

    @Test(
        "a patch under review is declined, then applied when its finding is accepted by name, and ps says so",
        .enabled(if: geteuid() == 0, "needs root"))
    func review() throws {
        let patch = shop.path("review.fother")
        let built = try shop.fother("build", shop.path("libold.so"), shop.path("libbigger.so"), "-o", patch)
        #expect(built.status == .exited(2), "\(built.outputText)")
        #expect(built.outputText.contains("allocation-changed:shop_price"))

        let child = try ChildProcess([shop.path("main")], input: .pipe, output: .pipe)
        try child.write("x")
        #expect(try child.readLine() == "3")
        let pid = "\(child.id)"
        let declined = try shop.fother("apply", patch, "--pid", pid)
        #expect(declined.status == .exited(2))
        #expect(declined.outputText.contains("--accept 'allocation-changed:shop_price'"))
        #expect(
            try shop.fother("apply", patch, "--pid", pid, "--accept", "layout-shift:x", "--because", "y").errorText.contains(
                "[finding-unknown]"))
        #expect(
            try shop.fother("apply", patch, "--pid", pid, "--accept", "allocation-changed:shop_price").errorText.contains(
                "[because-missing]"))
        try child.write("x")
        #expect(try child.readLine() == "3")

        let plan = try shop.fother(
            "apply", patch, "--pid", pid, "--dry-run", "--json", "--accept", "allocation-changed:shop_price", "--because", "freed at once")
        #expect(try shop.json(plan)["schema"] as? String == "fother.plan/1")
        let applied = try shop.fother(
            "apply", patch, "--pid", pid, "--json", "--accept", "allocation-changed:shop_price", "--because", "freed at once")
        #expect(applied.status == .exited(0), "\(applied.outputText)")
        let report = try shop.json(applied)
        #expect(Set(report.keys) == ["accepted", "buildID", "id", "processes", "schema"])
        #expect(
            (report["accepted"] as? [[String: String]])?.first == ["finding": "allocation-changed:shop_price", "because": "freed at once"])
        try child.write("x")
        #expect(try child.readLine() == "4")

        let ps = try shop.json(shop.fother("ps", "--pid", pid, "--json"))
        #expect(ps["schema"] as? String == "fother.ps/1")
        let process = try #require((ps["processes"] as? [[String: Any]])?.first)
        let found = try #require((process["patches"] as? [[String: Any]])?.first)
        #expect(found["state"] as? String == "patched")
        #expect((found["accepted"] as? [[String: String]])?.first?["because"] == "freed at once")

        let id = try #require(found["id"] as? String)
        #expect(try shop.fother("revert", String(id.prefix(12)), "--pid", pid).status == .exited(0))
        try child.write("x")
        #expect(try child.readLine() == "3")
    }

    @Test("sources that were given are evidence: a changed type is a finding with file and line, and leaves the patch to a person")
    func sources() throws {
        for (side, field) in [("old", ""), ("new", "char kind; ")] {
            try FileManager.default.createDirectory(atPath: shop.path(side), withIntermediateDirectories: true)
            try "struct offer {\n    \(field)long price;\n};\n".write(
                toFile: shop.path(side + "/offer.h"), atomically: true, encoding: .utf8)
        }
        func build(_ old: String, _ new: String) throws -> ChildOutput {
            try shop.fother(
                "build", shop.path("libold.so"), shop.path("libnew.so"), "-o", shop.path("s.fother"), "--old-source", shop.path(old),
                "--new-source", shop.path(new))
        }
        let differs = try build("old", "new")
        #expect(differs.status == .exited(2), "\(differs.outputText)")
        #expect(differs.outputText.contains("source differs"))
        #expect(differs.outputText.contains("source-type-changed:offer.h:2"))
        let agrees = try build("old", "old")
        #expect(agrees.status == .exited(0) && agrees.outputText.contains("source agrees"), "\(agrees.outputText)\(agrees.errorText)")
        #expect(try shop.fother("build", "a", "b", "--old-source", "x").status == .exited(64))
    }

    @Test("a refusal exits 2, writes no file, and names its code")
    func refusal() throws {
        let other = shop.path("refused.fother")
        let result = try shop.fother("build", shop.path("main"), shop.path("libnew.so"), "-o", other, "--json")
        #expect(result.status == .exited(2), "\(result.outputText)")
        #expect(!FileManager.default.fileExists(atPath: other))
    }
}

/// `fother rules` as an operator meets it.
@Suite struct RulesProgramTests {
    private let shop: Shop
    init() throws { shop = try Shop() }

    @Test func aFileThatIsNamedIsRead() throws {
        let rule = "alert tcp any any -> any any (msg:\"m\"; content:\"abcd\"; sid:1;)\n"
        try rule.write(toFile: shop.path("one.rules"), atomically: true, encoding: .utf8)
        #expect(try shop.fother("rules", "check", shop.path("one.rules")).outputText.contains("1 of 1 loaded"))
        #expect(try shop.fother("rules", "check", shop.folder).outputText.contains("1 of 1 loaded"))
        #expect(try shop.fother("rules", "check", shop.path("none.rules")).status == .exited(1))
    }

    @Test func withoutFilesTheOwnRulesAreMeant() throws {
        #expect(try shop.fother("rules", "list").outputText.contains("CVE-2023-49606"))
        #expect(try shop.fother("rules", "explain", "CVE-2023-49606").outputText.contains("tinyproxy"))
    }

    @Test func aStreamIsJudgedAtItsPort() throws {
        try (String(repeating: "c", count: 36) + "\0").write(toFile: shop.path("stream"), atomically: true, encoding: .utf8)
        let handle = try #require(FileHandle(forWritingAtPath: shop.path("stream")))
        try handle.seekToEnd()
        try handle.write(contentsOf: Data([255, 255, 255, 255, 1]))
        try handle.close()
        let words = ["rules", "test", "--stream", shop.path("stream"), "--port"]
        let found = try shop.json(shop.fother(words + ["5201", "--json"]))
        #expect((found["inputs"] as? [[String: Any]])?.first?["verdict"] as? String == "match")
        #expect(try shop.fother(words + ["80"]).status == .exited(0))
        #expect(try shop.fother("rules", "test", "--stream", shop.path("stream")).status == .exited(1))
    }
}
