// Attacks on thread-local storage: what running threads hold stays where it is.

import Testing

@Suite struct ThreadLocalTests {
    static let models = ["global-dynamic", "local-dynamic", "initial-exec"]

    private static func source(_ declarations: String) -> String {
        """
        \(declarations)
        static long x, y;
        long seta(long n) { return a = n; }
        long setb(long n) { return b = n * 3; }
        long geta(long n) { return a + n; }
        long getb(long n) { return b - n; }
        long both(long n) {
        #ifdef FIXED
            if (n < 0) return -1;
        #endif
            return a * 1000 + b + n; }
        """
    }

    @Test(arguments: models, [["-O2"], ["-O0"], ["-O2", "-mtls-dialect=gnu2"]]) func unchangedVariables(_ model: String, _ flags: [String])
        throws
    {
        let pair = try Pair(Self.source("static __thread long a, b;"), Recipe(flags: flags + ["-ftls-model=" + model]))
        try expectSound(
            pair, before: [Call("seta", 5), Call("setb", 7)], after: [Call("both", 1), Call("both", -1), Call("geta"), Call("getb")],
            comment: "\(model) \(flags)")
    }

    @Test(arguments: models, [["-O2"], ["-O0"], ["-O2", "-mtls-dialect=gnu2"]]) func variablesChangePlaces(
        _ model: String, _ flags: [String]
    ) throws {
        let pair = try Pair(
            old: Self.source("static __thread long a, b;"), new: Self.source("#define FIXED\nstatic __thread long b, a;"),
            Recipe(flags: flags + ["-ftls-model=" + model]))
        try expectSound(
            pair, before: [Call("seta", 5), Call("setb", 7)], after: [Call("both", 1), Call("both", -1), Call("geta"), Call("getb")],
            comment: "\(model) \(flags)")
    }

    /// Global in the source, local by the version script: no symbol tells the slots apart.
    @Test func variablesHiddenByAVersionScript() throws {
        let workshop = try Workshop()
        let map = try workshop.write("map", "V1 { global: seta; setb; geta; getb; both; local: *; };\n")
        let recipe = Recipe(link: ["-Wl,--version-script=" + map])
        let pair = try Pair(Self.source("__thread long a, b, c, d;"), recipe)
        try expectSound(
            pair, before: [Call("seta", 5), Call("setb", 7)], after: [Call("both", 1), Call("both", -1), Call("geta"), Call("getb")])
        let swapped = try Pair(
            old: Self.source("__thread long a, b, c, d;"), new: Self.source("#define FIXED\n__thread long d, c, b, a;"), recipe)
        try expectSound(
            swapped, before: [Call("seta", 5), Call("setb", 7)], after: [Call("both", 1), Call("both", -1), Call("geta"), Call("getb")])
    }

    /// One variable goes and another takes its place.
    @Test(arguments: models) func variableReplaced(_ model: String) throws {
        let pair = try Pair(
            """
            #ifdef FIXED
            static __thread long a, fresh;
            #define B fresh
            #else
            static __thread long a, gone;
            #define B gone
            #endif
            long seta(long n) { return a = n; }
            long geta(long n) { return a + n; }
            long other(long n) {
            #ifdef FIXED
                if (n < 0) return -1;
                return fresh++ + a;
            #else
                return gone -= n + 7;
            #endif
            }
            """, Recipe(flags: ["-O2", "-ftls-model=" + model]))
        try expectSound(pair, before: [Call("seta", 5)], after: [Call("other", 1), Call("other", 1), Call("geta")])
    }
}
