// Attacks on read-only data: a table that changed must be in force everywhere, and a copy must hold all that code can reach.

import LivePatch
import Testing

@Suite struct ReadOnlyDataTests {
    /// One function reads the fifth entry by itself, which looks like the end of the table to everybody else.
    @Test func changeBehindAnEntryThatIsUsedAlone() throws {
        let pair = try Pair(
            """
            #ifdef FIXED
            #define LAST 5
            #else
            #define LAST 500
            #endif
            static const int limits[16] = {1, 2, 3, 4, 50, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, LAST};
            long limit(long n) { return limits[n & 15]; }
            long fifth(long n) { return limits[4] + n; }
            long where(void) { return *(const int *volatile)&limits[4]; }
            const int *pointer(long n) { return &limits[4] + n; }
            """)
        try expectSound(pair, after: (0..<16).map { Call("limit", $0) })
    }

    /// The same where the table is used by code that moves for another reason: its copy, or the old table.
    @Test(arguments: [false, true]) func movedCodeReadsBeyondAnEntryThatIsUsedAlone(_ changes: Bool) throws {
        let pair = try Pair(
            """
            #if defined FIXED && \(changes ? 1 : 0)
            #define FIRST 9
            #else
            #define FIRST 1
            #endif
            static const int limits[16] = {FIRST, 2, 3, 4, 50, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};
            const int *pointer(long n) { return &limits[4] + n; }
            long first(long n) { return limits[0] + n; }
            long limit(long n) {
            #ifdef FIXED
                if (n < 0) return -1;
            #endif
                return limits[n & 15]; }
            """)
        try expectSound(pair, after: (-1..<16).map { Call("limit", $0) })
    }

    @Test func tableOfStructuresReadByItsSecondMember() throws {
        let pair = try Pair(
            """
            struct row { short key, value; int extra; };
            #ifdef FIXED
            #define LAST 1
            #else
            #define LAST 99
            #endif
            static const struct row rows[6] = {{1, 10, 3}, {2, 20, 4}, {3, 30, 5}, {4, 40, 6}, {5, 50, 7}, {6, 60, LAST}};
            long keys(long n) { long s = 0; for (int i = 0; i < 6; i++) s = s * 7 + rows[i].key; return s + n; }
            long values(long n) { return rows[n % 6].value; }
            long extras(long n) { return rows[n % 6].extra; }
            long all_extras(long n) { long s = 0; for (int i = 1; i < 6; i++) s = s * 7 + rows[i].extra; return s + n; }
            """)
        try expectSound(pair, after: [Call("keys"), Call("values", 5), Call("extras", 5), Call("all_extras"), Call("extras", 2)])
    }

    /// gcc may form the address of `map[c - 'A']` below the table, inside whatever stands there.
    @Test(arguments: ["-O2", "-O1", "-O3", "-Os"]) func tableReadWithAnOffset(_ level: String) throws {
        let pair = try Pair(
            """
            #ifdef FIXED
            #define LAST 1
            #else
            #define LAST 99
            #endif
            static const char before[80] = {5, 4, 3, 2, 1, 7, 7, 7};
            static const int map[26] = {3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3, 2, 3, 8, 4, 6, 2, 6, 4, 3, LAST};
            long earlier(long n) { return before[n % 80]; }
            const char *inside(long n) { return before + 40 + n; }
            long letter(long c) { return map[c - 'A']; }
            long word(long n) { long s = 0; for (long c = 'A'; c <= 'Z'; c++) s = s * 3 + map[c - 'A']; return s; }
            long more(long c) {
            #ifdef FIXED
                if (c < 'A') return -1;
            #endif
                return map[c - 'A' + 1]; }
            """, Recipe(flags: [level]))
        try expectSound(
            pair, after: [Call("letter", 90), Call("letter", 66), Call("word"), Call("more", 89), Call("more", 60), Call("earlier", 3)])
    }

    /// One access of sixteen bytes, and somebody else reads the second half.
    @Test func wideAccessOverANarrowOne() throws {
        let pair = try Pair(
            """
            #include <string.h>
            #ifdef FIXED
            #define LAST 1
            #else
            #define LAST 99
            #endif
            static const unsigned char key[32] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, [31] = LAST};
            long load(long n) { unsigned char k[32]; memcpy(k, key, 32); long s = 0; for (int i = 0; i < 32; i++) s = s * 31 + (k[i] ^ n); return s; }
            long part(long n) { long v; memcpy(&v, key + 8, 8); return v ^ n; }
            long part2(long n) { long v; memcpy(&v, key + 16, 8); return v ^ n; }
            """)
        try expectSound(pair, after: [Call("load"), Call("part"), Call("part2")])
    }

    /// An exported table is reached through the GOT: the slot stays, the contents do not.
    @Test func exportedConstantTableChanged() throws {
        let pair = try Pair(
            """
            #ifdef FIXED
            #define LAST 1
            #else
            #define LAST 99
            #endif
            const int limits[8] = {1, 2, 3, 4, 5, 6, 7, LAST};
            long limit(long n) { return limits[n & 7]; }
            """)
        try expectSound(pair, after: [Call("limit", 7), Call("limit", 1)])
    }

    /// Only others use it: the library has no code for it at all.
    @Test func exportedConstantTableThatOnlyOthersRead() throws {
        let j = try Pair(
            "#ifdef FIXED\nconst int limit = 5;\n#else\nconst int limit = 50;\n#endif\nlong f(long n) { return n * 3; }\n"
        ).judge()
        #expect(j.answer == .refuse, "\(j)")
    }

    /// A constant is known by its address: it must not become another one.
    @Test func addressOfAConstantIsItsIdentity() throws {
        let pair = try Pair(
            """
            #include <string.h>
            static const char none[] = "none";
            static const char *current = none;
            #ifdef FIXED
            #define TEXT "another text of the fixed build"
            #else
            #define TEXT "some text"
            #endif
            long is_none(void) { return current == none; }
            const char *text(void) { return TEXT; }
            long clear(long n) { current = none; return n; }
            long set(long n) {
            #ifdef FIXED
                if (n == 7) { current = none; return 70; }
            #endif
                current = n ? strchr("abc", 'b') : none; return n; }
            """)
        try expectSound(
            pair, before: [Call("set", 1)], after: [Call("is_none"), Call("set", 7), Call("is_none"), Call("set", 0), Call("is_none")])
    }

    @Test func stringsThatShareTheirEnds() throws {
        let pair = try Pair(
            """
            #include <string.h>
            #ifdef FIXED
            #define WORD "not permitted at all"
            #else
            #define WORD "permitted at all"
            #endif
            static const char *pick(long n) { switch (n & 3) { case 0: return "permitted at all"; case 1: return WORD; case 2: return "at all"; } return "all"; }
            static long hash(const char *s) { long h = 5; while (*s) h = h * 33 + *s++; return h; }
            long name(long n) { return hash(pick(n)); }
            long tail(long n) { return hash("at all") + n; }
            """)
        try expectSound(pair, after: [Call("name", 0), Call("name", 1), Call("name", 2), Call("name", 3), Call("tail")])
    }

    /// 87 is the letter W, and the bytes behind it are zero: no string all the same.
    @Test(arguments: ["char", "short", "int", "long"]) func smallNumbersAreNoText(_ type: String) throws {
        let pair = try Pair(
            """
            #ifdef FIXED
            #define LAST 109
            #else
            #define LAST 106
            #endif
            static const \(type) t[12] = {87, 0, 75, 115, 5, 70, 119, LAST, 80, 81, 82, LAST};
            static const \(type) u[12] = {87, 66, 75, 115, 65, 70, 119, 106, 80, 0, 82, LAST};
            long at(long n) { return t[n % 12]; }
            long second(long n) { return t[1] + u[1] + n; }
            long third(long n) { return t[2] * n + u[2]; }
            long other(long n) { return u[n % 12]; }
            __attribute__((noipa)) static long sum(const \(type) *p, long n) { long s = 0; for (long i = 0; i < n; i++) s = s * 3 + p[i]; return s; }
            long all(long n) {
            #ifdef FIXED
                if (n < 0) return -1;
            #endif
                return sum(t, 12) + sum(u, 12); }
            long each(long n) { return sum(u, 12) ^ sum(t, 12); }
            """)
        try expectSound(
            pair, after: (0..<12).flatMap { [Call("at", $0), Call("other", $0)] } + [Call("all"), Call("all", -1), Call("each")])
    }

    @Test func rowsOfText() throws {
        let pair = try Pair(
            """
            #ifdef FIXED
            #define LAST "xyz"
            #else
            #define LAST "abc"
            #endif
            static const char names[5][4] = {"sun", "mon", "tue", "wed", LAST};
            const char *day(long n) { return names[n % 5]; }
            const char *monday(void) { return names[1]; }
            long letter(long n) { return names[n % 5][0]; }
            """)
        let j = try expectSound(pair, after: (0..<5).map { Call("letter", $0) })
        #expect(j.answer != .nothingToDo, "\(j)")
    }

    /// The loop ends where the next table begins, and only one of the two has changed.
    @Test func endOfATableIsTheNextTable() throws {
        let pair = try Pair(
            """
            #ifdef FIXED
            #define LAST 1
            #else
            #define LAST 99
            #endif
            static const int second[8] = {7, 6, 5, 4, 3, 2, 1, 8};
            static const int first[8] = {1, 2, 3, 4, 5, 6, 7, LAST};
            long sum(long n) { long s = n; for (const int *p = first; p != first + 8; p++) s = s * 3 + *p; return s; }
            long sum_second(long n) { long s = n; for (const int *p = second; p != second + 8; p++) s = s * 3 + *p; return s; }
            long at(long n) { return second[n & 7]; }
            const int *give(void) { return second; }
            """)
        try expectSound(pair, after: [Call("sum", 1), Call("sum_second", 1), Call("at", 3)])
    }

    @Test func newTableBehindATableThatIsWalked() throws {
        let pair = try Pair(
            """
            #ifdef FIXED
            static const int fresh[8] = {70, 60, 50, 40, 30, 20, 10, 80};
            #endif
            static const int first[8] = {1, 2, 3, 4, 5, 6, 7, 8};
            long walk(long n) { long s = n; for (const int *p = first; p != first + 8; p++) s = s * 5 + *p; return s; }
            long sum(long n) {
                long s = n;
            #ifdef FIXED
                s += fresh[n & 7];
            #endif
                for (const int *p = first; p != first + 8; p++) s = s * 3 + *p; return s; }
            """)
        try expectSound(pair, after: [Call("sum", 1), Call("walk", 1), Call("sum", 3)])
    }

    @Test func floatingPointConstants() throws {
        let pair = try Pair(
            """
            #ifdef FIXED
            #define FACTOR 2.25
            #else
            #define FACTOR 2.5
            #endif
            long scale(long n) { return (long)(n * FACTOR); }
            long unscale(long n) { return (long)(n / 3.75); }
            long both(long n) { return (long)(n * 3.75 + 1.125); }
            """)
        try expectSound(pair, after: [Call("scale", 100), Call("unscale", 100), Call("both", 10)], answers: [.pass])
    }

    /// A structure that begins with text, and what looks like the zeros behind the text in one of the builds is a field.
    @Test(arguments: [(0, 5), (5, 0)], [false, true]) func structureThatBeginsWithText(_ limits: (Int, Int), _ changes: Bool) throws {
        let pair = try Pair(
            """
            #ifdef FIXED
            #define LIMIT \(limits.1)
            #else
            #define LIMIT \(limits.0)
            #endif
            struct item { char name[12]; int limit; };
            static const char before[16] = "0123456789abcde";
            static const struct item item = {"abcdefghij", LIMIT};
            static const char after[16] = "fedcba987654321";
            __attribute__((noipa)) static long first(const char *s) { return s[0]; }
            __attribute__((noipa)) static long limit_of(const struct item *i, long n) { return i->limit + n; }
            long a(long n) { return first(before) + n; }
            long limit(long n) {
            #if defined FIXED && \(changes ? 1 : 0)
                if (n < 0) return -1;
            #endif
                return limit_of(&item, n); }
            long b(long n) { return first(after) + n; }
            """)
        try expectSound(pair, after: [Call("limit", 1), Call("limit", -1), Call("a"), Call("b")])
    }

    /// The last text of a section, and the table behind it begins with zeros: how many zeros lie between is the linker's affair.
    @Test func textBeforeATableThatBeginsWithZeros() throws {
        let pair = try Pair(
            """
            #ifdef FIXED
            #define VERSION "2.6.12-1 of 2025/10/03"
            #else
            #define VERSION "2.6.12-1+much-longer of 2025/10/03"
            #endif
            static const char *const names[] = {"www-authenticate", "authorization", "accept-language"};
            static const __attribute__((aligned(64))) unsigned char lower[256] = {0, 1, 2, 3, 4, 5, 6, 7, [65] = 97, 98, 99};
            const char *version(void) { return VERSION; }
            long name(long n) { return names[n % 3][n % 5]; }
            long low(long n) { return lower[n & 255]; }
            long use(long (*f)(const unsigned char *)) { return f(lower); }
            """)
        let j = try expectSound(pair, after: (0..<6).map { Call("name", $0) } + [Call("low", 66)])
        #expect(j.moved == ["version"], "\(j)")
    }
}
