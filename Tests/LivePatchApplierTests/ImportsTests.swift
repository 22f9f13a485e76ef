// New code that calls what the old build does not import: it is found in the process, if only one thing can be meant.

import ELF
import Foundation
import LivePatch
import LivePatchApplier
import LivePatchBuilder
import ProcessControl
import Testing

@Suite(.serialized, .enabled(if: geteuid() == 0, "patching other processes needs root"))
struct ImportsTests {
    private static let library = """
        #include <errno.h>
        #include <stdlib.h>
        #include <string.h>
        extern char *program_invocation_short_name;
        int other(void) { return rand(); }
        long number(const char *s) {
        #ifdef FIXED
            return strtol(s, 0, 16) + (program_invocation_short_name[0] == 'u');
        #else
            return s[0] - '0';
        #endif
        }
        """
    private static let user = """
        #include <dlfcn.h>
        #include <stdio.h>
        #include <string.h>
        long number(const char *);
        #ifdef OWN
        long strtol(const char *s, char **e, int b) { return s[0] + b; }
        #endif
        int main(void) {
            static char line[256];
            printf("ready\\n");
            fflush(stdout);
            while (fgets(line, sizeof line, stdin)) {
                if (line[0] == '+') { printf("%d\\n", dlopen(strtok(line + 1, "\\n"), RTLD_NOW) != 0); fflush(stdout); continue; } printf("%ld\\n", number(line)); fflush(stdout); }
            return 0;
        }
        """

    private func folder(_ body: (String) throws -> Void) throws {
        let path = FileManager.default.temporaryDirectory.appendingPathComponent("fother-imports-\(UUID().uuidString)").path
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: path) }
        try Data(Self.library.utf8).write(to: URL(fileURLWithPath: path + "/lib.c"))
        try Data(Self.user.utf8).write(to: URL(fileURLWithPath: path + "/user.c"))
        for (side, define) in [("old", "-DOLD"), ("new", "-DFIXED")] {
            try FileManager.default.createDirectory(atPath: path + "/" + side, withIntermediateDirectories: true)
            let file = "\(path)/\(side)/libnumber.so"
            _ = try ChildProcess.runChecked(
                ["gcc", "-O2", "-fPIC", "-shared", "-Wl,--build-id", "-D_GNU_SOURCE", define, "-o", file, path + "/lib.c"])
            _ = try ChildProcess.runChecked(["strip", "--strip-unneeded", file])
        }
        try body(path)
    }

    private func patch(_ path: String) throws -> LivePatch {
        let result = try build(
            old: RegularFile.read(path + "/old/libnumber.so"), new: RegularFile.read(path + "/new/libnumber.so"),
            BuildContext(object: "libnumber.so"))
        guard case .patch(let file) = result.outcome else { throw Failure("test", "no patch: \(result.manifest.findings.map(\.key))") }
        return try LivePatch(parsing: file, name: "number.fother")
    }

    private func start(_ path: String, _ flags: [String] = []) throws -> Victim {
        _ = try ChildProcess.runChecked(
            ["gcc", "-O2", "-rdynamic"] + flags + [
                "-o", path + "/user", path + "/user.c", path + "/old/libnumber.so", "-Wl,-rpath,\(path)/old",
            ])
        return try Victim([path + "/user"])
    }

    @Test("a function and a variable of libc that the old build does not name")
    func lent() throws {
        try folder { path in
            let patch = try patch(path), applier = Applier(Tracer())
            #expect(Set(patch.contents.imports.map { $0.split(separator: "@")[0] }) == ["strtol", "program_invocation_short_name"])
            let victim = try start(path)
            #expect(try victim.ask("7f") == "7")
            for _ in 0..<3 {
                let outcome = applier.apply(patch, to: victim.id)
                #expect(outcome.word == "patched", "\(outcome)")
                #expect(try victim.ask("7f") == "128")
                #expect(applier.apply(patch, to: victim.id).word == "already patched")
                #expect(applier.revert(patch, in: victim.id).word == "reverted")
                #expect(try victim.ask("7f") == "7")
            }
        }
    }

    @Test("another definition that is loaded later does not change the choice that was made")
    func laterDefinition() throws {
        try folder { path in
            let patch = try patch(path), applier = Applier(Tracer()), victim = try start(path)
            #expect(applier.apply(patch, to: victim.id).word == "patched")
            try Data("long strtol(const char *s, char **e, int b) { return 5; }".utf8).write(to: URL(fileURLWithPath: path + "/rival.c"))
            _ = try ChildProcess.runChecked(["gcc", "-fPIC", "-shared", "-w", "-o", path + "/rival.so", path + "/rival.c"])
            #expect(try victim.ask("+\(path)/rival.so") == "1")
            #expect(applier.apply(patch, to: victim.id).word == "already patched")
            #expect(try victim.ask("7f") == "128")
            #expect(applier.revert(patch, in: victim.id).word == "reverted")
            #expect(try victim.ask("7f") == "7")
            #expect(applier.apply(patch, to: victim.id).word == "import-unresolved")
        }
    }

    @Test("a program that has a function of that name itself")
    func ambiguous() throws {
        try folder { path in
            let patch = try patch(path), victim = try start(path, ["-DOWN"])
            #expect(Applier(Tracer()).apply(patch, to: victim.id).word == "import-unresolved")
            #expect(try victim.ask("7f") == "7")
        }
    }
}
