// The patch file that comes out: readable by the usual tools, the same for the same inputs.

import ELF
import Foundation
import LivePatch
import LivePatchBuilder
import ProcessControl
import Testing

@Suite struct PatchFileTests {
    private static func pair() throws -> Pair {
        try Pair(
            """
            #include <stdlib.h>
            #include <string.h>
            static long seen, lost;
            static const char *const words[] = {"zero", "one", "two", "three"};
            long a(long n) { seen += n; return lost; }
            long b(long n) { lost += n; return seen; }
            const char *word(long n) { return words[n & 3]; }
            #ifdef FIXED
            static __attribute__((noinline)) long guard(long n) { static long calls; return ++calls > 5 ? -1 : n; }
            #endif
            long work(long op, long n) {
            #ifdef FIXED
                n = guard(n);
            #endif
                switch (op) {
                case 0: seen += n; return labs(n);
                case 1: lost += n; return strlen(words[n & 3]);
                case 2: return n * n - seen;
                case 3: return a(n) + b(n);
                case 4: return (long)strdup("a text that is new") != 0;
                case 5: return n / 3;
                }
                return -1;
            }
            """)
    }

    @Test func usualToolsReadIt() throws {
        let pair = try Self.pair()
        let j = try pair.judge()
        let file = try pair.workshop.write("case.fother", try #require(j.patch, "\(j)"))
        for tool in [
            ["readelf", "-a", "-W"], ["nm"], ["objdump", "-d", "-r"], ["objdump", "--dwarf=frames"], ["readelf", "--debug-dump=frames"],
        ] {
            let said = try ChildProcess.run(tool + [file])
            #expect(said.status.isSuccess, "\(tool)")
            #expect(said.errorText.isEmpty, "\(tool): \(said.errorText)")
        }
        let names = try ChildProcess.runChecked(["nm", file]).outputText
        #expect(names.contains(" T work\n"))
        #expect(names.contains(" a old."))
        #expect(!names.contains(" U "), "a patch has no undefined symbol")
        let code = try ChildProcess.runChecked(["objdump", "-d", file]).outputText
        #expect(code.contains("<work>:"))
        #expect(!code.contains("(bad)"))
        let frames = try ChildProcess.runChecked(["readelf", "--debug-dump=frames", file]).outputText
        #expect(frames.components(separatedBy: " FDE ").count - 1 >= j.moved.count, "each function has its unwind record")
    }

    @Test func readingItBackGivesWhatWasWritten() throws {
        let j = try Self.pair().judge()
        let patch = try LivePatch(parsing: try #require(j.patch), name: "case.fother")
        #expect(patch.manifest == j.result.manifest)
        #expect(patch.manifest.evidence == ["binary", "dwarf: absent"])
        #expect(patch.contents.replacements.count == j.moved.count)
        #expect(patch.contents.replacements.filter(\.isHooked).count == j.hooked.count)
    }

    @Test func sameInputsGiveTheSameBytes() throws {
        let pair = try Self.pair()
        let first = try pair.judge(), second = try pair.judge()
        #expect(first.patch == second.patch)
        #expect(try #require(first.patch).isEmpty == false)
    }

    /// A second program that runs the builder, where SwiftPM has put it.
    private static var bench: String? {
        [Bundle.main.bundlePath + "/bench-build", packageRoot + "/.build/debug/bench-build"].first {
            FileManager.default.isExecutableFile(atPath: $0)
        }
    }

    /// Set and dictionary order differs from process to process; patches must not.
    @Test(.enabled(if: bench != nil, "bench-build is not built, so there is no second process to compare with"))
    func anotherProcessGivesTheSameBytes() throws {
        let bench = try #require(Self.bench)
        let pair = try Self.pair()
        var seen: Set<[UInt8]> = []
        for i in 0..<6 {
            _ = try ChildProcess.runChecked(
                [bench, "--rounds", "1", "-o", "\(pair.workshop.path)/out\(i)", pair.old.path, pair.new.path], directory: pair.workshop.path
            )
            seen.insert(try pair.workshop.read("out\(i)"))
        }
        #expect(seen.count == 1, "six processes wrote \(seen.count) different patches")
    }
}

/// Where the package lies, seen from this file.
let packageRoot = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent().path
