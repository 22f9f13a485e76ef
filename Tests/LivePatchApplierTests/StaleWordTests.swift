// A stack holds more words that look like return addresses than return addresses. The first kind must not keep a patch
// out for ever, the second must.

import ELF
import Foundation
import LivePatch
import LivePatchApplier
import LivePatchBuilder
import ProcessControl
import Testing

@Suite(.serialized, .enabled(if: geteuid() == 0, "patching other processes needs root"))
struct StaleWordTests {
    private static let library = """
        #include <unistd.h>
        __attribute__((noinline)) int inner(int x) {
            volatile int a[8];
            for (int i = 0; i < 8; i++) a[i] = x + i;
            char c;
            if (x == -1 && read(0, &c, 1) < 0) return 0;
            return a[3] + a[5];
        }
        __attribute__((noinline)) int measured(int x) { volatile int y = inner(x); return y * 3 + 1; }
        """
    private static let program = """
        #include <poll.h>
        #include <stdio.h>
        int measured(int);
        __attribute__((noinline)) static int deep(int n, int x) {
            volatile char pad[200];
            pad[0] = n;
            return n ? deep(n - 1, x) + pad[0] - n : measured(x);
        }
        /* Its buffer lies where deep's frames were: full of return addresses that nobody will use. */
        __attribute__((noinline)) static void wait_here(void) {
            char buffer[8000];
            for (;;) {
                printf("%d\\n", measured(1));
                fflush(stdout);
                poll(NULL, 0, 20);
                __asm__ volatile("" : : "r"(buffer) : "memory");
            }
        }
        int main(int argc, char **argv) {
            deep(20, 5);
            printf("ready\\n");
            fflush(stdout);
            if (argc > 1) printf("%d\\n", measured(-1));
            wait_here();
        }
        """

    /// The program, and a patch that moves `measured`.
    private final class World {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("fother-stale-\(UUID().uuidString)")
        let patch: LivePatch

        init() throws {
            try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
            let path = folder.path
            try library.write(toFile: path + "/library.c", atomically: true, encoding: .utf8)
            try program.write(toFile: path + "/program.c", atomically: true, encoding: .utf8)
            _ = try ChildProcess.runChecked([
                "gcc", "-O2", "-fPIC", "-shared", "-Wl,-soname,libstale.so", "-Wl,--build-id", "-o", path + "/libstale.so",
                path + "/library.c",
            ])
            _ = try ChildProcess.runChecked([
                "gcc", "-O2", "-o", path + "/program", path + "/program.c", path + "/libstale.so", "-Wl,-rpath,$ORIGIN",
            ])
            let bytes = try RegularFile.read(path + "/libstale.so")
            let built = try buildItself(bytes, moving: .named(["measured"]), BuildContext(object: "libstale.so"))
            guard case .patch(let file) = built.outcome else { throw Failure("test", "no patch: \(built.manifest.findings)") }
            patch = try LivePatch(parsing: file, name: "stale.fother")
        }
        deinit { try? FileManager.default.removeItem(at: folder) }

        func start(_ arguments: String...) throws -> ChildProcess {
            let child = try ChildProcess([folder.path + "/program"] + arguments, input: .pipe, output: .pipe)
            #expect(try child.readLine() == "ready")
            return child
        }
    }

    @Test("old words on a stack do not keep a patch out: the unwind data tells them from return addresses")
    func staleWordsAreSeenThrough() throws {
        let world = try World(), child = try world.start()
        _ = try child.readLine()
        guard case .patched = Applier(Tracer()).apply(world.patch, to: child.id) else {
            Issue.record("not patched")
            return
        }
        for _ in 0..<10 { #expect(try child.readLine() == "31") }
    }

    @Test("a thread that will return into a function keeps the patch out, is named, and is waited for")
    func trueReturnAddressesBlock() throws {
        let world = try World(), child = try world.start("wait")
        let impatient = Applier(Tracer(), budget: TransitionBudget(attemptsMax: 20, timeout: .seconds(1)))
        guard case .blocked(let threads, _) = impatient.apply(world.patch, to: child.id) else {
            Issue.record("it was not blocked")
            return
        }
        #expect(threads.map(\.function) == ["measured"])
        #expect(threads.map(\.thread.value) == [child.id.value])
        // Nothing was left behind, and the target goes on.
        #expect(try ProcessView(child.id, held: { _ in world.patch }).patches.isEmpty)
        try child.write("x")
        #expect(try child.readLine() == "19")
        guard case .patched = Applier(Tracer()).apply(world.patch, to: child.id) else {
            Issue.record("not patched after it came back")
            return
        }
        for _ in 0..<10 { #expect(try child.readLine() == "31") }
    }
}
