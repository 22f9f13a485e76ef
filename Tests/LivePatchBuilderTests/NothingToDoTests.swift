// Builds that differ in nothing that a running process could notice, and constants that only look so.

import LivePatch
import LivePatchBuilder
import Testing

@Suite struct NothingToDoTests {
    private static let assertions = """
        #include <assert.h>
        long f1(long n) { assert(n > 1); return n * 2; }
        long f2(long n) { assert(n != 7); return n ^ 2; }
        //HERE
        long f3(long n) { assert(n > 3); if (n > 100) assert(n & 1); return n + 2; }
        long f4(long n) { assert(n < 400); return f1(n) + f2(n); }
        """

    @Test func sameSourcesGiveNothingToDo() throws {
        let j = try Pair(Self.assertions).judge()
        #expect(j.answer == .nothingToDo, "\(j)")
        #expect(j.result.statistics.same == j.result.statistics.newFunctions)
    }

    @Test func movedLinesOfAssertions() throws {
        let head = String(repeating: "\n", count: 40) + Self.assertions
        let j = try Pair(old: head, new: head.replacing("//HERE", with: "/* a comment\n * of three\n * lines */")).judge()
        #expect(j.answer == .nothingToDo, "\(j)")
        #expect(j.result.statistics.linesOnly >= 2, "\(j.result.statistics)")
    }

    /// A function of the library's own takes the line, next to the name of the file.
    private static let logging = """
        #include <stdarg.h>
        #include <stdio.h>
        long last;
        __attribute__((noinline)) void note(const char *file, int line, long value) { last = line; if (value > 1000000) printf("%s:%d\\n", file, line); }
        #define NOTE(v) note(__FILE__, __LINE__, v)
        //1

        """ + String(repeating: "\n", count: 30)
        + (1...6).map {
            """
            long g\($0)(long n) {
                if (n < \($0)) {
                    NOTE(n);
                    return -1;
                }
                NOTE(n * 2);
                return n * \($0 + 2);
            }

            """
        }.joined()

    @Test func movedLinesOfALocalLogger() throws {
        let j = try Pair(old: Self.logging, new: Self.logging.replacing("//1\n", with: "//1\n\n\n\n")).judge()
        #expect(j.answer == .nothingToDo, "\(j)")
        #expect(j.result.statistics.linesOnly >= 5, "\(j.result.statistics)")
    }

    /// The lines move and one limit changes: that function is a change and the others are not.
    @Test func aChangeAmongMovedLines() throws {
        let fixed = Self.logging.replacing("//1\n", with: "//1\n\n\n\n").replacing("if (n < 4)", with: "if (n < 9)")
        let j = try Pair(old: Self.logging, new: fixed).judge()
        #expect(j.answer == .pass, "\(j)")
        #expect(j.moved == ["g4"], "\(j)")
    }

    /// Off by one at every call: sizes that shift together are no lines.
    @Test func limitsThatShiftTogetherAreChanges() throws {
        func source(_ less: String) -> String {
            """
            #include <string.h>
            char a[4096], b[4096];
            __attribute__((noinline)) long copy(char *to, const char *from, long n, int room) { long i = 0; while (i < n && i < room) { to[i] = from[i]; i++; } return i; }
            long p(long n) { return copy(a, b, n, 64\(less)); }
            long q(long n) { return copy(b, a, n, 128\(less)); }
            long r(long n) { return copy(a + 9, b, n, 256\(less)); }
            long s(long n) { return copy(a + 7, b + 8, n, 512\(less)); }
            long t(long n) { return copy(b + 1, a + 1, n, 1024\(less)); }
            """
        }
        let j = try Pair(old: source(""), new: source(" - 1")).judge()
        #expect(j.answer == .pass, "\(j)")
        #expect(j.moved == ["p", "q", "r", "s", "t"], "\(j)")
    }

    /// One line was added above and a limit was raised by one: the limit is a change.
    @Test func aLimitThatMovesLikeTheLines() throws {
        let old =
            Self.logging + "struct limits { long pad[40]; int room; int other; };\nvoid defaults(struct limits *l) { l->room = 64; }\n"
        let new = old.replacing("//1\n", with: "//1\n\n").replacing("l->room = 64", with: "l->room = 65")
        let j = try Pair(old: old, new: new).judge()
        #expect(j.answer == .pass, "\(j)")
        #expect(j.moved == ["defaults"], "\(j)")
    }

    /// The same as an argument of a function that is called once.
    @Test func anArgumentThatMovesLikeTheLines() throws {
        let old =
            Self.logging + """
                __attribute__((noinline)) long clamp(long n, int room) { return n > room ? room : n; }
                long only(long n) { return clamp(n * 3, 96); }
                """
        let new = old.replacing("//1\n", with: "//1\n\n").replacing("clamp(n * 3, 96)", with: "clamp(n * 3, 97)")
        let j = try Pair(old: old, new: new).judge()
        #expect(j.moved == ["only"], "\(j)")
    }

    /// A new function that nobody calls yet changes nothing for running processes.
    @Test func onlyAnUnusedExportIsNew() throws {
        let j = try Pair("long f(long a) { return a * 3; }\n#ifdef FIXED\nlong g(long a) { return a * 5; }\n#endif\n").judge()
        #expect(j.answer == .nothingToDo, "\(j)")
    }
}
