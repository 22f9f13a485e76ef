// Builds that keep their symbol table: names prove which data is which, and must not prove too much.

import LivePatch
import Testing

@Suite struct SymbolPlaceTests {
    private static let unstripped: Recipe = {
        var recipe = Recipe()
        recipe.strip = ["--strip-debug", "--remove-section=.comment"]
        return recipe
    }()

    @Test(
        "members of a structure that only the changed function uses are known by the structure's name",
        arguments: [
            "",
            // Two of one name: each is known by the unchanged code that uses it.
            "long up(long n) { static long seen; return seen += n; }\nlong down(long n) { static long seen; return seen -= n; }\n",
        ])
    func members(_ more: String) throws {
        let pair = try Pair(
            """
            #include <string.h>
            static struct { long count; char name[24]; short last, first; long sum; } state;
            static long other;
            \(more)
            long tick(long n) { return other += n; }
            long add(long n) {
            #ifdef FIXED
                if (n < 0 || n > 1000) return state.last - 7;
            #endif
                state.count++;
                state.last = n;
                if (!state.first) state.first = n;
                state.sum += n;
                memset(state.name, 'a' + n % 20, 20);
                return state.sum * 3 + state.first + state.name[5] + state.count;
            }
            """, Self.unstripped)
        try expectSound(
            pair, before: [Call("add", 4), Call("add", 9)], after: [Call("add", 5), Call("add", 5000), Call("tick", 1), Call("add", 1)],
            answers: [.pass])
    }

    @Test(
        "a static variable of a function is not another function's of the same name, whatever number the compiler gave it",
        arguments: [false, true])
    func numbered(_ isFirst: Bool) throws {
        let guarding = """
            #ifdef FIXED
            __attribute__((noipa)) static long watch(long n) { static long seen; seen += n; return seen; }
            #endif

            """
        let total = "long total(long n) { static long seen; seen += n; return seen; }\nlong both(long n) { return total(n) + total(1); }\n"
        let pair = try Pair(
            """
            \(isFirst ? guarding : "")
            \(total)
            \(isFirst ? "" : guarding)
            long check(long n) {
            #ifdef FIXED
                return watch(n);
            #else
                return n;
            #endif
            }
            """, Self.unstripped)
        try expectSound(
            pair, before: [Call("total", 50)],
            after: [Call("check", 3), Call("total", 1), Call("check", 4), Call("both", 1)])
    }

    @Test("the static variable of a function that is gone is not that of a function that came, though both have one name")
    func replaced() throws {
        let pair = try Pair(
            """
            #ifdef FIXED
            __attribute__((noipa)) static long later(long n) { static long seen = 5; seen += n; return seen; }
            #else
            __attribute__((noipa)) static long sooner(long n) { static long seen = 5; seen -= n; return seen; }
            #endif
            long check(long n) {
            #ifdef FIXED
                return later(n);
            #else
                return sooner(n) + 1;
            #endif
            }
            """, Self.unstripped)
        // One name, one size, one file: that alone is no proof that it means the same.
        let j = try pair.judge()
        #expect(j.answer != .pass, "\(j)")
    }

    @Test("an address before an array is not its neighbour's, when the neighbours changed places", arguments: ["b - 1", "b + 8", "b - 4"])
    func folded(_ base: String) throws {
        let pair = try Pair(
            """
            #ifdef FIXED
            static long b[8], a[4];
            #else
            static long a[4], b[8];
            #endif
            long seta(long i, long v) { return a[i & 3] = v; }
            long suma(long n) { return a[0] + a[1] + a[2] + a[3] + n; }
            long put(long i, long v) {
                long *volatile p = \(base);
            #ifdef FIXED
                if (v > 1000) return -1;
            #endif
                return (p - (\(base) - b))[i & 7] += v;
            }
            """, Self.unstripped)
        try expectSound(
            pair, before: [Call("put", 1, 5), Call("seta", 1, 9)],
            after: [Call("put", 1, 7), Call("put", 2, 3), Call("suma", 0), Call("put", 1, 2000), Call("seta", 3, 4), Call("suma", 1)])
    }
}
