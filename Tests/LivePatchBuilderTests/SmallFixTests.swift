// The fixes that a first live patch must get right, each compiled, stripped, derived, judged, and run in a process: the
// patched old build must answer as the fixed build does.

import LivePatch
import Testing

@Suite struct SmallFixTests {
    /// Expects a pass with these functions, and that `calls` answer in the patched process as in the fixed build, and
    /// that at least one of them differs from the old build.
    private func expectPass(
        _ pair: Pair, moved: Set<String>, hooked: Set<String>, calls: [(String, Int, Int)], before: [(String, Int, Int)] = [],
        sourceLocation: SourceLocation = #_sourceLocation
    ) throws {
        let j = try pair.judge()
        #expect(j.answer == .pass, "\(j)", sourceLocation: sourceLocation)
        #expect(j.codes.isEmpty, "\(j)", sourceLocation: sourceLocation)
        #expect(j.moved == moved, "\(j)", sourceLocation: sourceLocation)
        #expect(j.hooked == hooked, "\(j)", sourceLocation: sourceLocation)
        guard let patch = j.patch else { return }
        let old = try Host(pair.workshop, pair.old.path), new = try Host(pair.workshop, pair.new.path),
            patched = try Host(pair.workshop, pair.old.path)
        for (name, a, b) in before { for host in [old, new, patched] { _ = try host.call(name, a, b) } }
        try patched.apply(patch)
        var differs = calls.isEmpty
        for (name, a, b) in calls {
            let fixed = try new.call(name, a, b)
            #expect(try patched.call(name, a, b) == fixed, "\(name)(\(a), \(b)) in the patched process", sourceLocation: sourceLocation)
            if try old.call(name, a, b) != fixed { differs = true }
        }
        #expect(differs, "the case shows no difference between the builds", sourceLocation: sourceLocation)
    }

    @Test func changedFunction() throws {
        let pair = try Pair(
            """
            long scale(long a, long b) { return a * 3 + b; }
            long check(long n, long limit) {
            #ifdef FIXED
                if (n < 0) return -1;
            #endif
                return n > limit ? limit : n;
            }
            long other(long a) { return a ^ 0x55; }
            """)
        try expectPass(pair, moved: ["check"], hooked: ["check"], calls: [("check", -5, 3), ("check", 9, 3), ("scale", 2, 2)])
    }

    @Test func addedHelper() throws {
        let pair = try Pair(
            """
            long twice(long a) { return 2 * a; }
            #ifdef FIXED
            static __attribute__((noinline)) long validate(long n) { return n < 0 || n > 1000 ? 0 : n; }
            #endif
            long entry(long n) {
            #ifdef FIXED
                n = validate(n);
            #endif
                return n * 7;
            }
            """)
        try expectPass(pair, moved: ["entry", "validate"], hooked: ["entry"], calls: [("entry", 5000, 0), ("entry", 10, 0)])
    }

    /// Old code calls the changed function, the changed function calls old code, all of it static.
    @Test func callsBothWays() throws {
        let pair = try Pair(
            """
            static __attribute__((noinline)) long leaf(long a) { long s = 0; while (a > 0) { s += a & 7; a >>= 1; } return s; }
            static __attribute__((noinline)) long middle(long a, long b) {
            #ifdef FIXED
                if (a > 100) a = 100;
            #endif
                return leaf(a) * 5 + leaf(b);
            }
            long outer(long a, long b) { return middle(a, b) + 1; }
            long second(long a, long b) { return middle(b, a) - leaf(a); }
            """)
        try expectPass(pair, moved: ["middle"], hooked: ["middle"], calls: [("outer", 4000, 2), ("second", 3, 4000)])
    }

    @Test func importsThroughPLTAndGOT() throws {
        let pair = try Pair(
            """
            #include <stdlib.h>
            #include <string.h>
            #include <errno.h>
            extern char **environ;
            static char last[64];
            const char *remember(const char *s) { strncpy(last, s, sizeof last - 1); return last; }
            long copy(long n, long fill) {
                char *p = malloc(n + 1);
                if (!p) return -1;
            #ifdef FIXED
                if (n > 40) { free(p); errno = 7; return -(long)(environ != 0); }
            #endif
                memset(p, (int)fill, n);
                p[n] = 0;
                long length = strlen(p);
                free(p);
                return length;
            }
            long variables(long a) { long n = 0; errno = 0; while (environ && environ[n]) n++; return n + a; }
            """)
        try expectPass(pair, moved: ["copy"], hooked: ["copy"], calls: [("copy", 50, 65), ("copy", 10, 65)])
    }

    /// The call goes through the GOT without a PLT entry.
    @Test func importsWithoutPLT() throws {
        let pair = try Pair(
            """
            #include <stdlib.h>
            long parse(long n) { char s[32]; long i = 0; do s[i++] = '0' + n % 10; while ((n /= 10) && i < 30); s[i] = 0;
            #ifdef FIXED
                if (i > 3) return -1;
            #endif
                return atol(s); }
            long again(long n) { return labs(n) + atol("12"); }
            """, Recipe(flags: ["-O2", "-fno-plt", "-fno-builtin"]))
        try expectPass(pair, moved: ["parse"], hooked: ["parse"], calls: [("parse", 12345, 0), ("parse", 21, 0)])
    }

    @Test func oldDataByExportedName() throws {
        let pair = try Pair(
            """
            int total;
            int table[8] = {1, 2, 3, 4, 5, 6, 7, 8};
            long add(long n) {
            #ifdef FIXED
                if (n > 10) return -1;
            #endif
                total += table[n & 7] + n;
                return total;
            }
            """)
        try expectPass(
            pair, moved: ["add"], hooked: ["add"], calls: [("add", 11, 0), ("add", 3, 0)], before: [("add", 2, 0), ("add", 3, 0)])
    }

    private static func counter(_ readers: Int) -> String {
        let others = (0..<readers).map { "long reader\($0)(long a) { return counter * \($0 + 3) + a; }\n" }.joined()
        return """
            static long counter;
            \(others)
            long bump(long n) {
            #ifdef FIXED
                if (n > 5) n = 5;
            #endif
                return counter += n;
            }
            """
    }

    @Test func staticDataByTwoVotes() throws {
        try expectPass(
            try Pair(Self.counter(2)), moved: ["bump"], hooked: ["bump"], calls: [("bump", 50, 0), ("bump", 1, 0), ("reader0", 1, 0)],
            before: [("bump", 4, 0)])
    }

    @Test("data that only changed code uses is known by its place, and a person is told", arguments: [0, 1])
    func staticDataByPlace(readers: Int) throws {
        let j = try Pair(Self.counter(readers)).judge()
        #expect(j.answer == .review, "\(j)")
        #expect(j.codes == ["data-by-place"], "\(j)")
    }

    /// Two variables alike that change places, or one that takes another's: nothing is proved.
    @Test(
        "data that changed places, or meaning, is not taken for what stood there",
        arguments: [
            // the changed function turns to the other variable
            "static long a, b; long f(long n) { FIX return A += n; } long g(long n) { FIX return B -= n; }",
            // one is gone, and another came
            "long f(long n) { FIX static long A; A ^= n * 3; return A + n; } static long c; long g(long n) { FIX return c += n; }",
            // one more in front of it
            "#ifdef FIXED\nstatic long z; long y(void) { return z++; }\n#endif\nstatic long a, b; long f(long n) { FIX return a += n; } long g(long n) { FIX return b -= n; }",
        ])
    func staticDataThatMoved(source: String) throws {
        let define =
            "#ifdef FIXED\n#define FIX if (n > 5) n = 5;\n#define A b\n#define B a\n#else\n#define FIX\n#define A a\n#define B b\n#endif\n"
        let pair = try Pair(define + source), j = try pair.judge()
        guard let patch = j.patch else { return }
        // What is built must do what the fixed build does, from a start that is the same.
        let new = try Host(pair.workshop, pair.new.path), patched = try Host(pair.workshop, pair.old.path)
        try patched.apply(patch)
        for n in [3, 50, 7, -2] { for name in ["f", "g"] { #expect(try patched.call(name, n, 0) == new.call(name, n, 0), "\(j)") } }
    }

    @Test func newString() throws {
        let pair = try Pair(
            """
            const char *describe(long code) {
                switch (code) { case 0: return "success"; case 1: return "failure"; }
            #ifdef FIXED
                if (code < 0) return "negative code, which used to be taken for unknown";
            #endif
                return "unknown";
            }
            const char *title(void) { return "unknown"; }
            """)
        let j = try pair.judge()
        #expect(j.answer == .pass, "\(j)")
        #expect(j.moved == ["describe"] && j.hooked == ["describe"], "\(j)")
        let patched = try Host(pair.workshop, pair.old.path)
        try patched.apply(try #require(j.patch))
        #expect(try patched.text("describe", -1) == "negative code, which used to be taken for unknown")
        #expect(try patched.text("describe", 1) == "failure")
        #expect(try patched.text("describe", 5) == "unknown")
    }

    @Test func newConstantTable() throws {
        let pair = try Pair(
            """
            static const unsigned short weights[16] = {9, 8, 7, 6, 5, 4, 3, 2, 1, 12, 13, 14, 15, 16, 17, 18};
            long weigh(long n) { return weights[n & 15]; }
            #ifdef FIXED
            static const unsigned char allowed[256] = {[3] = 1, [4] = 1, [5] = 1, [200] = 1};
            #endif
            long filter(long n) {
            #ifdef FIXED
                if (!allowed[n & 255]) return -1;
            #endif
                return weights[n & 15] + n;
            }
            """)
        try expectPass(
            pair, moved: ["filter"], hooked: ["filter"],
            calls: [("filter", 200, 0), ("filter", 3, 0), ("filter", 77, 0), ("filter", 255, 0)])
    }

    @Test func newStaticVariable() throws {
        let pair = try Pair(
            """
            static long calls;
            long first(long n) { return calls++ + n; }
            long second(long n) { return calls += n; }
            long limited(long n) {
            #ifdef FIXED
                static long used;
                if ((used += n) > 100) return -1;
            #endif
                return n * 2;
            }
            """)
        try expectPass(
            pair, moved: ["limited"], hooked: ["limited"], calls: [("limited", 60, 0), ("limited", 60, 0), ("first", 1, 0)],
            before: [("first", 1, 0)])
    }

    @Test func jumpTable() throws {
        let pair = try Pair(
            """
            extern int rand(void);
            long g(long, long);
            long dispatch(long op, long n) {
                switch (op) {
                case 0: return n + 1;
                case 1: return n * n;
                case 2: return g(n, 3) - 2;
                case 3: return n ? 100 / n : 0;
                case 4: return ~n;
                case 5: return g(g(n, 1), 2);
                case 6: return n << 3;
            #ifdef FIXED
                case 7: return n < 0 ? -1 : n;
            #endif
                default: return -9;
                }
            }
            __attribute__((noinline)) long g(long n, long k) { return n * k + 1; }
            """)
        try expectPass(
            pair, moved: ["dispatch", "dispatch.cold"], hooked: ["dispatch"], calls: (0..<9).map { ("dispatch", $0, 6) })
    }

    private static let coldSource = """
        #include <stdio.h>
        #include <stdlib.h>
        static long failures;
        long failed(void) { return failures; }
        long forget(void) { return failures = 0; }
        static __attribute__((noinline, cold)) void report(long n) { failures += n; }
        long hot(long n, long k) {
            long s = 0;
            for (long i = 0; i < k; i++) s += (n ^ i) % 7;
        #if defined FIXED && defined IN_HOT
            s += 1000;
        #endif
            if (__builtin_expect(n < 0, 0)) {
                report(1);
                report(n);
        #if defined FIXED && defined IN_COLD
                report(100);
        #endif
                return s - failures;
            }
            return s * 2;
        }
        """

    @Test func changeInTheHotPart() throws {
        try expectPass(
            try Pair("#define IN_HOT\n" + Self.coldSource), moved: ["hot", "hot.cold"], hooked: ["hot"],
            calls: [("hot", 5, 3), ("hot", -5, 3), ("failed", 0, 0)])
    }

    @Test func changeInTheColdPart() throws {
        try expectPass(
            try Pair("#define IN_COLD\n" + Self.coldSource), moved: ["hot", "hot.cold"], hooked: ["hot"],
            calls: [("hot", 5, 3), ("hot", -5, 3), ("failed", 0, 0)])
    }

    /// Code that did not change reads a table that did: its functions must move, or the old table stays in force.
    @Test func changedConstantTableMovesItsReaders() throws {
        let pair = try Pair(
            """
            #ifdef FIXED
            #define LAST 0
            #else
            #define LAST 77
            #endif
            static const int limits[12] = {11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, LAST};
            long limit(long n) { return limits[n % 12]; }
            long sum(long n) { long s = 0; for (long i = 0; i < 12; i++) s += limits[i] * n; return s; }
            long unrelated(long n) { return n * 13; }
            """)
        try expectPass(
            pair, moved: ["limit", "sum"], hooked: ["limit", "sum"], calls: [("limit", 11, 0), ("sum", 2, 0), ("limit", 3, 0)])
    }

    @Test func changedConstantOfABuffer() throws {
        let pair = try Pair(
            """
            #include <string.h>
            #ifdef FIXED
            #define SIZE 128
            #else
            #define SIZE 129
            #endif
            long fill(char *p, long n);
            long use(long n) { char b[160]; memset(b, 0, sizeof b); fill(b, n); long k = 0; while (k < 160 && b[k]) k++; return k; }
            __attribute__((noinline)) long fill(char *p, long n) { memset(p, 'x', n > SIZE ? SIZE : n); return n; }
            """)
        try expectPass(pair, moved: ["fill"], hooked: ["fill"], calls: [("use", 150, 0), ("use", 12, 0)])
    }

    @Test func severalFilesAndShiftedData() throws {
        let pair = try Pair(sources: [
            "a.c": """
            #ifdef FIXED
            static const char extra[] = "some new text that moves everything behind it";
            const char *motto(void) { return extra; }
            #endif
            static long opened, closed;
            long open_one(long n) { return opened += n; }
            long close_one(long n) { return closed += n; }
            long balance(void) { return opened - closed; }
            """,
            "b.c": """
            long balance(void);
            static long history[32];
            static long used;
            long push(long n) { history[used++ & 31] = n; return used; }
            long pop(void) { return history[--used & 31]; }
            long peek(long n) {
            #ifdef FIXED
                if (n < 0 || n >= used) return -1;
            #endif
                return history[n & 31] + balance();
            }
            """,
        ])
        try expectPass(
            pair, moved: ["peek"], hooked: ["peek"], calls: [("peek", 40, 0), ("peek", 0, 0), ("peek", 1, 0)],
            before: [("push", 5, 0), ("push", 6, 0), ("open_one", 3, 0)])
    }

    /// The fix brings a function that the library exports, so that even its own calls go through the procedure linkage table.
    @Test func newExportedFunction() throws {
        let pair = try Pair(
            """
            static long seen;
            #ifdef FIXED
            long is_allowed(long n) { return n >= 0 && n < 100; }
            #endif
            long count(long n) { return seen += n; }
            long uncount(long n) { return seen -= n; }
            long fix(long n) {
            #ifdef FIXED
                if (!is_allowed(n)) return -1;
            #endif
                return n * 3 + seen; }
            """, Recipe(flags: ["-O2", "-fno-inline"]))
        let j = try expectSound(
            pair, before: [Call("count", 2)], after: [Call("fix", 5), Call("fix", -5), Call("fix", 500), Call("count", 1)], answers: [.pass]
        )
        #expect(j.moved == ["fix", "is_allowed"], "\(j)")
    }
}
