// Which patches may switch call by call: only those whose old bodies cannot lead to another function that changes.

import ELF
import LivePatch
import LivePatchBuilder
import MachineCode
import Testing

@Suite struct ConsistencyTests {
    private func consistency(_ source: String) throws -> (Consistency, Judgement) {
        let judgement = try Pair(source).judge()
        return (judgement.result.manifest.consistency, judgement)
    }

    @Test func oneFunction() throws {
        let (c, j) = try consistency(
            """
            #ifdef FIXED
            #define LIMIT 10
            #else
            #define LIMIT 1000
            #endif
            static __attribute__((noinline)) long inner(long n) { return n > LIMIT ? LIMIT : n * n; }
            long a(long n) { return inner(n) + 1; }
            long b(long n) { return inner(n) + 2; }
            """)
        #expect(j.hooked == ["inner"] && c.mode == .perCall, "\(c) \(j)")
    }

    private static let two = """
        #ifdef FIXED
        #define MORE(x) ((x) * 3 + 7)
        #else
        #define MORE(x) ((x) * 2 + 1)
        #endif

        """

    @Test func twoStrangers() throws {
        let (c, j) = try consistency(
            Self.two + "long a(long n) { return MORE(n) ^ n; }\nlong b(long n) { return MORE(n) - n / 5; }")
        #expect(j.hooked == ["a", "b"] && c.mode == .perCall, "\(c) \(j)")
    }

    @Test("an exported function that calls another one that changes", arguments: [true, false])
    func callsTheOther(directly: Bool) throws {
        let (c, j) = try consistency(
            Self.two
                + """
                __attribute__((noinline)) long b(long n) { return MORE(n) - n / 5; }
                __attribute__((noinline)) long between(long n) { return b(n) * 9 + b(n + 1); }
                long a(long n) { return MORE(\(directly ? "b" : "between")(n)) ^ n; }
                """)
        #expect(j.hooked == ["a", "b"] && c.mode == .together, "\(c) \(j)")
        #expect(c.because.contains("can call b"), "\(c)")
    }

    @Test func localFunction() throws {
        let (c, j) = try consistency(
            Self.two
                + """
                static __attribute__((noinline)) long inner(long n) { return MORE(n) - n / 5; }
                static __attribute__((noinline)) long other(long n) { return MORE(n) * 5 - n / 7; }
                long a(long n) { return inner(n) + 1; }
                long b(long n) { return other(n) + 2; }
                """)
        #expect(j.hooked == ["inner", "other"] && c.mode == .together, "\(c) \(j)")
        #expect(c.because.contains("is local"), "\(c)")
    }
}

@Suite struct SiteFormTests {
    private func sites(_ source: String, _ flags: [String] = ["-O2"]) throws -> (PatchSiteForms, Pair, Judgement) {
        let pair = try Pair(source, Recipe(flags: flags)), j = try pair.judge()
        let file = try #require(j.patch, "\(j)")
        let patch = try LivePatch(parsing: file, name: "case.fother")
        let plan = try patch.plan(bias: LoadBias(0x7f00_0000_0000), base: RuntimeAddress(0x7f00_1000_0000))
        return (PatchSiteForms(kinds: plan.sites.map(\.kind), lengths: plan.sites.map(\.new.count)), pair, j)
    }
    private struct PatchSiteForms: Equatable {
        var kinds: [PlannedSite.Kind]
        var lengths: [Int]
    }

    private func expectEqualAnswers(_ pair: Pair, _ j: Judgement, _ name: String) throws {
        let new = try Host(pair.workshop, pair.new.path), patched = try Host(pair.workshop, pair.old.path)
        try patched.apply(try #require(j.patch))
        for n in [-3, 0, 1, 7, 1000] { #expect(try patched.call(name, n, 2) == new.call(name, n, 2), "\(name)(\(n))") }
    }

    /// A function before it whose end leaves room for the alignment of the next, and an entry with a short first instruction.
    private static let short = """
        long before(long n) { return n * 3; }
        long f(long n, long m) {
            long s = n;
        #ifdef FIXED
            if (m == 2) s += 100;
        #endif
            for (long i = 0; i < n; i++) s ^= i * m;
            return s;
        }
        """

    @Test func bridged() throws {
        let (forms, pair, j) = try sites(Self.short)
        #expect(forms == PatchSiteForms(kinds: [.bridge, .entry(isSplit: false)], lengths: [5, 2]))
        try expectEqualAnswers(pair, j, "f")
    }

    @Test("behind ENDBR64 too") func bridgedBehindENDBR64() throws {
        let (forms, pair, j) = try sites(Self.short, ["-O2", "-fcf-protection=full"])
        #expect(forms == PatchSiteForms(kinds: [.bridge, .entry(isSplit: false)], lengths: [5, 2]))
        try expectEqualAnswers(pair, j, "f")
    }

    @Test("without padding, five bytes over several instructions") func split() throws {
        let (forms, pair, j) = try sites(Self.short, ["-O2", "-falign-functions=1"])
        #expect(forms == PatchSiteForms(kinds: [.entry(isSplit: true)], lengths: [5]))
        try expectEqualAnswers(pair, j, "f")
    }

    @Test("a function of three bytes has room for the short jump") func tiny() throws {
        let (forms, pair, j) = try sites(
            """
            long before(long n) { return n * 3; }
            __asm__(".globl f\\n.type f, @function\\n.p2align 4\\nf:\\n.cfi_startproc\\n"
            #ifdef FIXED
                "lea 5(%rdi), %rax\\nret\\n"
            #else
                "xor %eax, %eax\\nret\\n"
            #endif
                ".cfi_endproc\\n.size f, .-f\\n.p2align 4,0xcc\\n");
            long after(long n) { return n * 5; }
            """, ["-O2", "-fno-toplevel-reorder"])
        #expect(forms == PatchSiteForms(kinds: [.bridge, .entry(isSplit: false)], lengths: [5, 2]))
        try expectEqualAnswers(pair, j, "f")
    }

    @Test("padding that code refers to is nobody's to take") func referred() throws {
        let (forms, _, _) = try sites(
            """
            long before(long n) { return n * 3; }
            extern char spot[] __attribute__((visibility("hidden")));
            char *where(void) { return spot; }
            __asm__(".p2align 4\\n.nops 11\\nspot:\\n.nops 5\\n.globl f\\n.type f, @function\\nf:\\n.cfi_startproc\\n"
                "xor %eax, %eax\\n"
            #ifdef FIXED
                "lea 5(%rdi), %rax\\n"
            #endif
                "imul %rdi, %rax\\nadd $3, %rax\\nret\\n.cfi_endproc\\n.size f, .-f\\n.p2align 4,0xcc\\n");
            """)
        #expect(forms == PatchSiteForms(kinds: [.entry(isSplit: true)], lengths: [5]))
    }
}
