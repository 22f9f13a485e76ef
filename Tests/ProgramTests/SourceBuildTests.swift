// `build --source` from end to end on a Debian source package that the test writes itself: one file of C, rules that call gcc, no
// network and nothing to install.

import ELF
import Foundation
import ProcessControl
import Testing

/// A source package in the cache, where the archive's would be, and the package that was built from it.
private final class TinyPackage {
    let folder = FileManager.default.temporaryDirectory.appendingPathComponent("fother-source-\(UUID().uuidString)").path
    let package: String

    static let isPossible: Bool =
        ["dpkg-source", "dpkg-buildpackage", "dpkg-deb", "gcc", "patch"].allSatisfy { name in
            (try? ChildProcess.run(["sh", "-c", "command -v \(name)"]))?.status.isSuccess ?? false
        } && (try? ChildProcess.run(["dpkg-query", "--show", "build-essential"]))?.status.isSuccess ?? false

    /// `target`: the one of the rules' that builds.
    init(building target: String = "build-arch") throws {
        package = folder + "/fother-tiny_1.0_amd64.deb"
        let source = folder + "/fother-tiny-1.0"
        let files = [
            "tiny.c": """
            static int limit = 100;
            int tiny_set(int n) { return limit = n; }
            int tiny_check(int n) {
                if (n > limit)
                    return -1;
                return n;
            }

            """,
            "debian/control": """
            Source: fother-tiny
            Maintainer: Nobody <nobody@example.org>
            Standards-Version: 4.6.2

            Package: fother-tiny
            Architecture: any
            Description: tiny
             For a test.

            """,
            "debian/changelog": """
            fother-tiny (1.0) unstable; urgency=medium

              * First.

             -- Nobody <nobody@example.org>  Mon, 01 Jan 2024 00:00:00 +0000

            """,
            "debian/rules": """
            #!/usr/bin/make -f
            \(target):
            \t@echo "built by user $$(id -u)"
            \tgcc -O2 -g -ffile-prefix-map=$(CURDIR)=. -fPIC -shared -Wl,--build-id -o libtiny.so tiny.c
            clean build binary binary-arch \(target == "install" ? "build-arch" : "install"):

            """,
            "debian/source/format": "3.0 (native)\n",
        ]
        for (name, text) in files {
            try FileManager.default.createDirectory(
                atPath: ((source + "/" + name) as NSString).deletingLastPathComponent, withIntermediateDirectories: true)
            try text.write(toFile: source + "/" + name, atomically: true, encoding: .utf8)
        }
        try FileManager.default.setAttributes([.posixPermissions: 0o755], ofItemAtPath: source + "/debian/rules")
        let archived = folder + "/cache/apt-sources/packages/fother-tiny_1.0"
        try FileManager.default.createDirectory(atPath: archived, withIntermediateDirectories: true)
        _ = try ChildProcess.runChecked(["dpkg-source", "--build", source], directory: archived)

        let root = folder + "/root"
        try FileManager.default.createDirectory(atPath: root + "/usr/lib", withIntermediateDirectories: true)
        try FileManager.default.createDirectory(atPath: root + "/DEBIAN", withIntermediateDirectories: true)
        try "Package: fother-tiny\nVersion: 1.0\nArchitecture: amd64\nMaintainer: Nobody <nobody@example.org>\nDescription: tiny\n".write(
            toFile: root + "/DEBIAN/control", atomically: true, encoding: .utf8)
        _ = try ChildProcess.runChecked(
            ["gcc", "-O2", "-g", "-fPIC", "-shared", "-Wl,--build-id", "-o", root + "/usr/lib/libtiny.so", "tiny.c"], directory: source)
        _ = try ChildProcess.runChecked(["strip", "--strip-unneeded", root + "/usr/lib/libtiny.so"])
        _ = try ChildProcess.runChecked(["dpkg-deb", "--root-owner-group", "--build", root, package])
    }
    deinit { try? FileManager.default.removeItem(atPath: folder) }

    /// A patch of `tiny.c` that exchanges one line, with the lines around it.
    func patch(_ name: String, line: Int, _ before: String, _ old: String, _ new: String, _ after: String) throws -> String {
        let count = new.split(separator: "\n").count
        let text = """
            --- a/tiny.c
            +++ b/tiny.c
            @@ -\(line),3 +\(line),\(count + 2) @@
             \(before)
            -\(old)
            \(new.split(separator: "\n").map { "+" + $0 }.joined(separator: "\n"))
             \(after)

            """
        let path = folder + "/" + name
        try text.write(toFile: path, atomically: true, encoding: .utf8)
        return path
    }

    var fix: String {
        get throws {
            try patch(
                "CVE-2024-12345.patch", line: 3, "int tiny_check(int n) {", "    if (n > limit)", "    if (n < 0 || n > limit)",
                "        return -1;")
        }
    }

    func build(_ words: [String]) throws -> ChildOutput {
        let environment = ProcessInfo.processInfo.environment.merging([
            "FOTHER_STATE": folder + "/state", "FOTHER_CACHE": folder + "/cache",
        ]) { $1 }
        return try ChildProcess.run(
            [Shop.program, "build", "--source", package, "-o", folder + "/out.fother", "--json"] + words,
            environment: environment.map { "\($0.key)=\($0.value)" })
    }

    /// The report and its only result.
    func report(_ words: [String]) throws -> (report: [String: Any], result: [String: Any]) {
        let output = try build(words)
        let report = try #require(
            try JSONSerialization.jsonObject(with: Data(output.output)) as? [String: Any], "\(output.outputText)\(output.errorText)")
        return (report, try #require((report["results"] as? [[String: Any]])?.first, "\(output.outputText)"))
    }
}

@Suite(.serialized, .enabled(if: TinyPackage.isPossible, "needs dpkg-dev, patch and build-essential"))
struct SourceBuildTests {
    @Test("a fix is built for the installed build: with the sources' evidence it passes, and the second time nothing is built")
    func fix() throws {
        let tiny = try TinyPackage()
        let (report, result) = try tiny.report(["--patch", tiny.fix])
        #expect(result["outcome"] as? String == "patch", "\(result)")
        let manifest = try #require(result["manifest"] as? [String: Any])
        #expect(manifest["verdict"] as? String == "pass", "\(manifest)")
        #expect((manifest["evidence"] as? [String])?.contains("source: agrees") == true, "\(manifest)")
        #expect(manifest["cves"] as? [String] == ["CVE-2024-12345"])
        let installed = try ELFFile(RegularFile.read(tiny.folder + "/root/usr/lib/libtiny.so"), name: "installed")
        #expect(manifest["buildID"] as? String == installed.buildID?.description)
        let functions = try #require(manifest["functions"] as? [[String: Any]])
        #expect(functions.map { $0["name"] as? String } == ["tiny_check"])

        let kept = try #require(report["kept"] as? String)
        let before = try FileManager.default.attributesOfItem(atPath: kept)[.modificationDate] as? Date
        let again = try tiny.report(["--patch", tiny.fix])
        #expect(again.result["id"] as? String == result["id"] as? String)
        #expect(try FileManager.default.attributesOfItem(atPath: kept)[.modificationDate] as? Date == before)
    }

    @Test("a fix that the source has is taken off, and an adapted one is put in its place: the patch is for the build without either")
    func adapted() throws {
        let tiny = try TinyPackage()
        // The sources have what this patch brings.
        let has = try tiny.patch(
            "has.patch", line: 3, "int tiny_check(int n) {", "    if (n >= limit)", "    if (n > limit)", "        return -1;")
        let reverted = try tiny.report(["--revert", has])
        #expect(reverted.result["outcome"] as? String == "patch", "\(reverted.result)")
        let adapted = try tiny.patch(
            "adapted.patch", line: 3, "int tiny_check(int n) {", "    if (n >= limit)",
            "    if (n < 1)\n        return -2;\n    if (n > limit)",
            "        return -1;")
        let both = try tiny.report(["--revert", has, "--patch", adapted])
        #expect(both.result["outcome"] as? String == "patch", "\(both.result)")
        let a = try #require(reverted.result["manifest"] as? [String: Any]), b = try #require(both.result["manifest"] as? [String: Any])
        #expect(a["buildID"] as? String == b["buildID"] as? String)
        #expect(a["newBuildID"] as? String != b["newBuildID"] as? String)
    }

    @Test("rules that build only when they install are run so far")
    func install() throws {
        let tiny = try TinyPackage(building: "install")
        let (_, result) = try tiny.report(["--patch", tiny.fix])
        #expect(result["outcome"] as? String == "patch", "\(result)")
    }

    @Test("an adapted fix may bring a variable of its own: a person is asked whether it is new, and nothing is refused")
    func shadow() throws {
        let tiny = try TinyPackage()
        let fix = tiny.folder + "/shadow.patch"
        try """
        --- a/tiny.c
        +++ b/tiny.c
        @@ -1,7 +1,10 @@
         static int limit = 100;
         int tiny_set(int n) { return limit = n; }
        +static int refused;
         int tiny_check(int n) {
        -    if (n > limit)
        +    if (n > limit || refused > 1000) {
        +        refused++;
                 return -1;
        +    }
             return n;
         }

        """.write(toFile: fix, atomically: true, encoding: .utf8)
        let (_, result) = try tiny.report(["--patch", fix])
        #expect(result["outcome"] as? String == "patch", "\(result)")
        let manifest = try #require(result["manifest"] as? [String: Any])
        let codes = try #require(manifest["findings"] as? [[String: Any]]).compactMap { $0["code"] as? String }
        #expect(Set(codes) == ["data-by-place", "source-declaration-changed"] && manifest["verdict"] as? String == "review", "\(manifest)")
    }

    @Test("a fix that changes what live data starts as is refused, with the sources' line")
    func initialValue() throws {
        let tiny = try TinyPackage()
        let fix = tiny.folder + "/limit.patch"
        try
            "--- a/tiny.c\n+++ b/tiny.c\n@@ -1,2 +1,2 @@\n-static int limit = 100;\n+static int limit = 50;\n int tiny_set(int n) { return limit = n; }\n"
            .write(
                toFile: fix, atomically: true, encoding: .utf8)
        let (_, result) = try tiny.report(["--patch", fix])
        #expect(result["outcome"] as? String == "refused", "\(result)")
        let manifest = try #require(result["manifest"] as? [String: Any])
        let codes = try #require(manifest["findings"] as? [[String: Any]]).compactMap { $0["code"] as? String }
        #expect(codes.contains("initial-data-changed"), "\(codes)")
    }

    @Test("a step that fails says which, with the end of its output: a patch that does not fit, and rules that fail")
    func failures() throws {
        let tiny = try TinyPackage()
        let other = try tiny.patch(
            "other.patch", line: 3, "int tiny_check(int n) {", "    if (n == limit)", "    return 0;", "        return -1;")
        let unfit = try tiny.build(["--patch", other])
        #expect(unfit.status == .exited(1))
        #expect(unfit.errorText.contains("[patch-does-not-apply]"), "\(unfit.errorText)")

        let broken = try tiny.patch(
            "broken.patch", line: 3, "int tiny_check(int n) {", "    if (n > limit)", "    if (n > undeclared_limit)", "        return -1;")
        let failed = try tiny.build(["--patch", broken])
        #expect(failed.status == .exited(1))
        #expect(failed.errorText.contains("[build-failed]") && failed.errorText.contains("the fixed side"), "\(failed.errorText)")
        #expect(failed.errorText.contains("undeclared_limit"), "the end of the output is quoted: \(failed.errorText)")
        if geteuid() == 0 {
            #expect(failed.errorText.contains("built by user 65534"), "rules of strangers run as nobody: \(failed.errorText)")
        }
        let kept = (try? FileManager.default.contentsOfDirectory(atPath: tiny.folder + "/cache/builds")) ?? []
        #expect(kept.isEmpty, "a build of which one side failed is not kept: \(kept)")
    }
}
