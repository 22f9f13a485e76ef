// Attacks on the matching of functions: many that look the same, and names that say too little.

import LivePatch
import Testing

@Suite struct LookAlikeTests {
    /// Getters with one code. The fix adds one before the others and calls it first, so that lining up the callers pairs
    /// each with its neighbour.
    @Test func gettersShiftByOne() throws {
        let pair = try Pair(
            """
            static long a, b, c;
            #ifdef FIXED
            static __attribute__((noipa)) long get_c(long n) { long s = c; while (n-- > 0) s = s * 3 + c; return s; }
            #endif
            static __attribute__((noipa)) long get_a(long n) { long s = a; while (n-- > 0) s = s * 3 + a; return s; }
            static __attribute__((noipa)) long get_b(long n) { long s = b; while (n-- > 0) s = s * 3 + b; return s; }
            long use(long n) {
            #ifdef FIXED
                return get_c(n) * 10000 + get_a(n) * 100 + get_b(n);
            #else
                return get_a(n) * 100 + get_b(n);
            #endif
            }
            long set(long n) { a = n; b = n + 1; c = n + 2; return n; }
            """)
        try expectSound(pair, before: [Call("set", 5)], after: [Call("use", 1), Call("use", 3)])
    }

    /// A new function has the code of an old one, which changed itself.
    @Test func newFunctionWithTheCodeOfAChangedOne() throws {
        let body = "{ long s = n; for (int i = 0; i < 5; i++) s = s * 31 + COUNTER; return COUNTER = s & 0xffff; }"
        let pair = try Pair(
            """
            static long a, b;
            #define NOINLINE static __attribute__((noipa)) long
            #ifdef FIXED
            NOINLINE step(long n) { if (n < 0) return -1; long s = n; for (int i = 0; i < 6; i++) s = s * 33 + a; return a = s & 0xfff; }
            NOINLINE step2(long n) \(body.replacing("COUNTER", with: "b"))
            #else
            NOINLINE step(long n) \(body.replacing("COUNTER", with: "a"))
            #endif
            long run(long n) {
            #ifdef FIXED
                return step(n) + step2(n) * 100000;
            #else
                return step(n);
            #endif
            }
            long set(long n) { a = n; b = n * 7; return n; }
            long read(long n) { return a * 3 + b + n; }
            """)
        try expectSound(pair, before: [Call("set", 5)], after: [Call("run", 1), Call("run", -4), Call("run", 3), Call("read", 1)])
    }

    /// Two static functions with one code change places in the file; a third is fixed.
    @Test func twinsChangePlaces() throws {
        func twin(_ name: String, _ variable: String) -> String {
            "static __attribute__((noipa)) long \(name)(long n) { long s = \(variable); while (n > 0) { s = s * 5 + n; n >>= 1; } return \(variable) = s & 0xffff; }\n"
        }
        let rest = """
            long fix(long n) {
            #ifdef FIXED
                if (n < 0) return -1;
            #endif
                return first(n) * 3 + second(n + 1) * 7; }
            long set(long n) { a = n; b = n + 100; return n; }
            """
        let pair = try Pair(
            old: "static long a, b;\n" + twin("first", "a") + twin("second", "b") + rest,
            new: "#define FIXED\nstatic long a, b;\n" + twin("second", "b") + twin("first", "a") + rest)
        try expectSound(pair, before: [Call("set", 5)], after: [Call("fix", 6), Call("fix", -6), Call("fix", 9)])
    }

    /// The same where nothing but a table of pointers tells them apart.
    @Test func twinsInATable() throws {
        func twin(_ name: String, _ variable: String) -> String {
            "static long \(name)(long n) { long s = \(variable); while (n > 0) { s = s * 5 + n; n >>= 1; } return \(variable) = s & 0xffff; }\n"
        }
        let rest = """
            static long (*const table[])(long) = {first, second};
            long fix(long n, long k) {
            #ifdef FIXED
                if (n < 0) return -1;
            #endif
                return table[k & 1](n); }
            long other(long n) { return table[n & 1](5); }
            long set(long n) { a = n; b = n + 100; return n; }
            long get(long n) { return a * 1000 + b + n; }
            """
        let pair = try Pair(
            old: "static long a, b;\n" + twin("first", "a") + twin("second", "b") + rest,
            new: "#define FIXED\nstatic long a, b;\n" + twin("second", "b") + twin("first", "a") + rest)
        try expectSound(pair, before: [Call("set", 5)], after: [Call("fix", 6, 0), Call("fix", 6, 1), Call("fix", -6, 0), Call("get", 0)])
    }

    /// Two functions differ in one constant, and the fix changes one of them so that it looks like the other.
    @Test func fixMakesOneLikeTheOther() throws {
        let pair = try Pair(
            """
            #ifdef FIXED
            #define LIMIT_A 10
            #define LIMIT_B 100
            #else
            #define LIMIT_A 100
            #define LIMIT_B 1000
            #endif
            static __attribute__((noipa)) long check_a(long n) { long s = 0; for (long i = 0; i < n && i < LIMIT_A; i++) s += i * i; return s; }
            static __attribute__((noipa)) long check_b(long n) { long s = 0; for (long i = 0; i < n && i < LIMIT_B; i++) s += i * i; return s; }
            long a(long n) { return check_a(n) + 1; }
            long b(long n) { return check_b(n) + 2; }
            """)
        try expectSound(pair, after: [Call("a", 5000), Call("b", 5000), Call("a", 50), Call("b", 500)])
    }

    /// Static functions with one name in two files, not stripped.
    @Test func oneNameInTwoFiles() throws {
        let recipe = Recipe(strip: ["--remove-section=.comment"])
        let pair = try Pair(
            sources: [
                "a.c": """
                static long state;
                static __attribute__((noipa)) long step(long n) { long s = state; for (int i = 0; i < 4; i++) s = s * 3 + n; return state = s & 0xfff; }
                long a(long n) { return step(n); }
                long a_get(long n) { return state + n; }
                """,
                "b.c": """
                #ifdef FIXED
                static long state;
                static __attribute__((noipa)) long step(long n) { long s = state; for (int i = 0; i < 6; i++) s = s * 5 + n; return state = s & 0xfff; }
                #endif
                long b(long n) {
                #ifdef FIXED
                    return step(n);
                #else
                    return n;
                #endif
                }
                """,
            ], recipe)
        try expectSound(pair, before: [Call("a", 4)], after: [Call("a", 1), Call("b", 1), Call("a_get"), Call("b", 7)])
    }

    @Test func nameGoesToAnotherFile() throws {
        let recipe = Recipe(strip: ["--remove-section=.comment"])
        let pair = try Pair(
            sources: [
                "a.c": """
                static long state;
                #ifndef FIXED
                static __attribute__((noipa)) long step(long n) { long s = state; for (int i = 0; i < 4; i++) s = s * 3 + n; return state = s & 0xfff; }
                long a(long n) { return step(n); }
                #else
                long a(long n) { return n < 0 ? -1 : state + n; }
                #endif
                long a_get(long n) { return state + n; }
                long a_set(long n) { return state = n; }
                """,
                "b.c": """
                static long state;
                #ifdef FIXED
                static __attribute__((noipa)) long step(long n) { long s = state; for (int i = 0; i < 4; i++) s = s * 3 + n; return state = s & 0xfff; }
                #endif
                long b(long n) {
                #ifdef FIXED
                    return step(n);
                #else
                    return n;
                #endif
                }
                long b_get(long n) { return state + n; }
                long b_set(long n) { return state = n; }
                """,
            ], recipe)
        try expectSound(
            pair, before: [Call("a_set", 4), Call("b_set", 9)],
            after: [Call("a", 1), Call("b", 1), Call("a_get"), Call("b_get"), Call("b", 7)])
    }
}
