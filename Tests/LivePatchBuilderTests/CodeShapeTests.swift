// Attacks with code that compilers and assemblers write when one does not expect it.

import LivePatch
import Testing

@Suite struct CodeShapeTests {
    private static let ordinary = """
        #include <stdlib.h>
        #include <string.h>
        static long total, calls;
        static const char *const names[] = {"one", "two", "three", "four"};
        static const unsigned char sizes[] = {1, 2, 4, 8, 16, 32, 64, 128};
        static __attribute__((noinline)) long mix(long a, long b) { calls++; return a * 31 + b; }
        static __attribute__((noinline)) long pick(long n) { calls++; return strlen(names[n & 3]) + sizes[n & 7]; }
        long sum(long n) { total += n; return mix(total, calls); }
        long op(long k, long n) {
            switch (k) {
            case 0: return mix(n, 1);
            case 1: return pick(n);
            case 2: total += n; return total;
            case 3: return n / 3;
            case 4: return labs(n) + pick(n);
            #ifdef FIXED
            case 5: if (n < 0) return -7; /* falls */
            #else
            case 5:
            #endif
            case 6: return mix(pick(n), n);
            }
            return -1;
        }
        long reset(long n) { long t = total; total = n; return t; }
        long last(long n) {
            char b[32] = "abcdefghijklmnop";
            #ifdef FIXED
            if (n > 10 || n < 0) return -1;
            #endif
            return b[n & 31] + mix(n, total);
        }
        long tail(long a, long b) { calls++; return mix(b, a); }
        """
    private static let calls =
        (0..<8).map { Call("op", $0, 6) } + (0..<8).map { Call("op", $0, -6) } + [
            Call("last", 20), Call("last", 3), Call("sum", 4), Call("tail", 2, 3),
        ]

    static let flagSets: [[String]] = [
        ["-O0"], ["-O1"], ["-O2"], ["-O3"], ["-Os"], ["-Og"], ["-O2", "-fcf-protection=full"], ["-O2", "-fno-plt"],
        ["-O2", "-fno-plt", "-fcf-protection=full"],
        ["-O2", "-fno-jump-tables"], ["-O2", "-flto"], ["-O2", "-fno-plt", "-Wl,-z,now"], ["-O2", "-fvisibility=hidden"],
        ["-O2", "-ffunction-sections", "-fdata-sections", "-Wl,--gc-sections"],
        ["-O2", "-fstack-protector-all", "-D_FORTIFY_SOURCE=2"], ["-O2", "-mcmodel=large"],
        ["-O2", "-mcmodel=medium", "-mlarge-data-threshold=8"], ["-O2", "-fno-semantic-interposition"],
        ["-O2", "-Wl,-Bsymbolic"], ["-O2", "-march=x86-64-v3", "-O3"], ["-O2", "-mindirect-branch=thunk"], ["-O2", "-falign-functions=64"],
        ["-O2", "-fsplit-stack"], ["-O2", "-pg"], ["-O2", "-fpatchable-function-entry=5"], ["-O2", "-fno-toplevel-reorder"],
        ["-O2", "-fuse-ld=gold"], ["-O2", "-fno-pic", "-fPIE"],
    ]

    @Test(arguments: flagSets) func ordinaryFixUnder(_ flags: [String]) throws {
        let hidden = flags.contains("-fvisibility=hidden")
        let source =
            hidden
            ? "#pragma GCC visibility push(default)\nlong sum(long), op(long, long), last(long), tail(long, long);\n#pragma GCC visibility pop\n"
                + Self.ordinary : Self.ordinary
        guard let pair = try? Pair(source, Recipe(flags: flags)) else { return }
        let answers: Set<Judgement.Answer>? = [["-O1"], ["-O2"], ["-O3"]].contains(flags) ? [.pass] : nil
        try expectSound(pair, before: [Call("sum", 5), Call("op", 2, 5)], after: Self.calls, answers: answers, comment: "\(flags)")
    }

    /// A case of the switch goes to code that is never expected and never returns: to the cold part, which jumps nowhere back.
    @Test func switchThatGoesToColdCode() throws {
        let pair = try Pair(
            """
            #include <stdlib.h>
            long g(long, long);
            __attribute__((noreturn, cold, noinline)) void die(long n) { exit((int)n); }
            long dispatch(long op, long n) {
                switch (op) {
                case 0: return n + 1;
                case 1: return n * n;
                case 2: die(3);
                case 3: return g(n, 3) - 2;
                case 4: return n ? 100 / n : 0;
                case 5: return ~n;
                case 6: return g(g(n, 1), 2);
            #ifdef FIXED
                case 7: return n < 0 ? -1 : n;
            #endif
                case 8: return n << 3;
                default: return -9;
                }
            }
            __attribute__((noinline)) long g(long n, long k) { return n * k + 1; }
            """)
        let j = try expectSound(pair, after: [0, 1, 3, 4, 5, 6, 7, 8, 9].map { Call("dispatch", $0, 6) })
        #expect(j.answer == .pass || j.answer == .refuse, "\(j)")
    }

    /// The same, and nothing leads from the cold part back, so that only the table shows that it belongs to the function.
    @Test(arguments: [false, true]) func switchThatGoesToColdCodeAlone(_ inCold: Bool) throws {
        let pair = try Pair(
            """
            #include <stdlib.h>
            long g(long, long);
            static long died, x;
            long get_died(void) { return died; }
            long set_died(long n) { return died = n; }
            void leave(long n);
            __attribute__((noreturn, cold, noipa)) static void die(long n) { died += n; leave(n); __builtin_unreachable(); }
            long dispatch(long op, long n) {
                switch (op) {
                case 0: return n + 1;
                case 1: return n * n;
                case 2:
            #if defined FIXED && \(inCold ? 1 : 0)
                    die(30);
            #endif
                    die(3);
                case 3: return g(n, 3) - 2;
                case 4: return n ? 100 / n : 0;
                case 5: return ~n;
                case 6: return g(g(n, 1), 2);
            #if defined FIXED && !\(inCold ? 1 : 0)
                case 7: return g(n, 5) ^ 7;
            #endif
                case 8: return n << 3;
                default: return g(n, op) + 1;
                }
            }
            __attribute__((noipa)) long g(long n, long k) { return n * k + 1; }
            #include <setjmp.h>
            static jmp_buf away;
            void leave(long n) { longjmp(away, 1); }
            long safely(long op, long n) { if (setjmp(away)) return -5; return dispatch(op, n); }
            """)
        try expectSound(pair, after: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9].map { Call("safely", $0, 6) } + [Call("get_died")])
    }

    /// Assembly that runs from one function into the next.
    @Test(arguments: ["first", "second"]) func assemblyThatFallsThrough(_ which: String) throws {
        func add(_ name: String) -> String { which == name ? "\n#ifdef FIXED\n\"  add $7, %rdi\\n\"\n#endif\n" : "" }
        let pair = try Pair(
            """
            __asm__(".text\\n.globl first\\n.type first,@function\\nfirst:\\n.cfi_startproc\\n"
            \(add("first"))
            "  lea 1(%rdi,%rdi), %rdi\\n  imul $3, %rdi, %rdi\\n  add $9, %rsi\\n .cfi_endproc\\n.size first,.-first\\n"
            ".globl second\\n.type second,@function\\nsecond:\\n.cfi_startproc\\n"
            \(add("second"))
            "  lea 2(%rdi), %rax\\n  xor %rsi, %rax\\n  nop\\n ret\\n.cfi_endproc\\n.size second,.-second\\n");
            long other(long n) { return n * 5; }
            """)
        try expectSound(pair, after: [Call("first", 5, 3), Call("second", 5, 3), Call("other", 1)])
    }

    /// Nobody calls the second by name: it is entered only by running into it.
    @Test func assemblyThatRunsIntoAHiddenPart() throws {
        let pair = try Pair(
            """
            __asm__(".text\\n.globl first\\n.type first,@function\\nfirst:\\n.cfi_startproc\\n"
            "  lea 1(%rdi,%rdi), %rdi\\n  imul $3, %rdi, %rdi\\n  add $9, %rsi\\n .cfi_endproc\\n.size first,.-first\\n"
            "second:\\n.cfi_startproc\\n"
            #ifdef FIXED
            "  add $7, %rdi\\n"
            #endif
            "  lea 2(%rdi), %rax\\n  xor %rsi, %rax\\n  nop\\n  imul $11, %rax, %rax\\n ret\\n.cfi_endproc\\n.size second,.-second\\n");
            long other(long n) { return n * 5; }
            """)
        try expectSound(pair, after: [Call("first", 5, 3), Call("other", 1)])
    }

    /// One record of unwind data, two entries.
    @Test func secondEntryInsideAFunction() throws {
        let pair = try Pair(
            """
            __asm__(".text\\n.globl outer\\n.type outer,@function\\nouter:\\n.cfi_startproc\\n"
            "  lea 1(%rdi,%rdi), %rdi\\n  imul $3, %rdi, %rdi\\n  add $9, %rsi\\n"
            ".globl inner\\n.type inner,@function\\ninner:\\n"
            #ifdef FIXED
            "  add $7, %rdi\\n"
            #endif
            "  lea 2(%rdi), %rax\\n  xor %rsi, %rax\\n  nop\\n ret\\n.cfi_endproc\\n.size inner,.-inner\\n.size outer,.-outer\\n");
            long other(long n) { return n * 5; }
            """)
        try expectSound(pair, after: [Call("outer", 5, 3), Call("inner", 5, 3), Call("other", 1)])
    }

    /// The same, and only a pointer in data leads to the second entry.
    @Test func pointerIntoAFunction() throws {
        let pair = try Pair(
            """
            __asm__(".text\\n.globl outer\\n.type outer,@function\\nouter:\\n.cfi_startproc\\n"
            "  lea 1(%rdi,%rdi), %rdi\\n  imul $3, %rdi, %rdi\\n  add $9, %rsi\\n"
            ".hidden inner\\n.globl inner\\ninner:\\n"
            #ifdef FIXED
            "  add $7, %rdi\\n"
            #endif
            "  lea 2(%rdi), %rax\\n  xor %rsi, %rax\\n  nop\\n ret\\n.cfi_endproc\\n.size outer,.-outer\\n");
            extern long inner(long, long) __attribute__((visibility("hidden")));
            static long (*const table[])(long, long) = {inner, inner};
            long via(long a, long b) { return table[a & 1](a, b); }
            """)
        try expectSound(pair, after: [Call("outer", 5, 3), Call("via", 5, 3)])
    }

    /// Assembly without unwind data and without a symbol that survives.
    @Test func assemblyWithoutUnwindData() throws {
        let pair = try Pair(
            """
            __asm__(".text\\nhidden_step:\\n"
            #ifdef FIXED
            "  add $7, %rdi\\n"
            #endif
            "  lea 2(%rdi), %rax\\n  xor %rsi, %rax\\n  imul $3, %rax, %rax\\n ret\\n.p2align 4\\n");
            long hidden_step(long, long) __attribute__((visibility("hidden")));
            long via(long a, long b) { return hidden_step(a, b) + 1; }
            long other(long n) { return n * 5; }
            """)
        try expectSound(pair, after: [Call("via", 5, 3), Call("other", 1)])
    }

    /// Constants between functions, which happen to look like calls.
    @Test func constantsInText() throws {
        let pair = try Pair(
            """
            __asm__(".text\\n.p2align 4\\ntext_table:\\n"
            #ifdef FIXED
            " .byte 0xe8, 1, 0, 0, 0, 0xe8, 2, 0, 0, 0, 0xc3\\n"
            #else
            " .byte 0xe8, 9, 0, 0, 0, 0xe8, 2, 0, 0, 0, 0xc3\\n"
            #endif
            ".p2align 4\\n");
            extern const unsigned char text_table[] __attribute__((visibility("hidden")));
            long get(long n) { return text_table[n]; }
            long other(long n) { return n * 5; }
            """)
        try expectSound(pair, after: [Call("get", 1), Call("get", 6), Call("other", 1)])
    }

    /// Code behind bytes that are no instructions calls the function that changed.
    @Test func callBehindConstantsInText() throws {
        let pair = try Pair(
            """
            static __attribute__((noinline, used)) long target(long n) __asm__("target_label");
            #ifdef FIXED
            #define K 7
            #else
            #define K 9
            #endif
            static long target(long n) { long s = 0; for (long i = 0; i < n; i++) s = s * 3 + i * K; return s; }
            __asm__(".text\\n.globl entry\\n.type entry,@function\\nentry:\\n.cfi_startproc\\n jmp 1f\\n .byte 0x06, 0x06, 0x48, 0xb8\\n1: call target_label\\n add $1, %rax\\n ret\\n.cfi_endproc\\n.size entry,.-entry\\n");
            long other(long n) { return n * 5; }
            """)
        try expectSound(pair, after: [Call("entry", 5), Call("other", 1)])
    }

    @Test func indirectFunction() throws {
        let pair = try Pair(
            """
            static long plain(long n) { long s = 0; for (long i = 0; i < n; i++) s += i * 3; return s; }
            static long fast(long n) {
            #ifdef FIXED
                if (n < 0 || n > 100) return -1;
            #endif
                return n * (n - 1) / 2 * 3; }
            static long (*resolve(void))(long) { return __builtin_cpu_supports("sse2") ? fast : plain; }
            long work(long) __attribute__((ifunc("resolve")));
            long call(long n) { return work(n) + 1; }
            """)
        try expectSound(pair, after: [Call("work", 5), Call("call", 500), Call("work", 500), Call("call", 7)])
    }

    @Test func aliasesAndWeakSymbols() throws {
        let pair = try Pair(
            """
            long real(long n) {
            #ifdef FIXED
                if (n > 100) return -1;
            #endif
                long s = 3; for (long i = 0; i < n; i++) s = s * 5 + i; return s; }
            long other_name(long n) __attribute__((alias("real")));
            extern long weak_name(long n) __attribute__((weak, alias("real")));
            long call(long n) { return other_name(n) + 1; }
            """)
        let j = try expectSound(
            pair, after: [Call("real", 500), Call("other_name", 500), Call("weak_name", 500), Call("call", 500), Call("call", 5)])
        #expect(j.answer == .pass, "\(j)")
    }

    @Test func symbolVersions() throws {
        let workshop = try Workshop()
        let map = try workshop.write("map", "V1 { global: f; g; local: *; };\nV2 { global: f; } V1;\n")
        let pair = try Pair(
            """
            __asm__(".symver f_old,f@V1\\n.symver f_new,f@@V2\\n");
            long f_old(long n) { long s = 1; for (long i = 0; i < n; i++) s = s * 3 + i; return s; }
            long f_new(long n) {
            #ifdef FIXED
                if (n > 100) return -1;
            #endif
                long s = 2; for (long i = 0; i < n; i++) s = s * 3 + i; return s; }
            long g(long n) { return f_new(n) + f_old(n); }
            """, Recipe(link: ["-Wl,--version-script=" + map]))
        try expectSound(pair, after: [Call("f", 5), Call("f", 500), Call("g", 500)])
    }

    /// The new build reads through a pointer that it computes from where its own code stands.
    @Test func addressesComputedFromTheCode() throws {
        let pair = try Pair(
            """
            static const int table[4] = {11, 22, 33, 44};
            static const int table2[4] = {1, 2, 3, 4};
            __asm__(".text\\n.globl fetch\\n.type fetch,@function\\nfetch:\\n.cfi_startproc\\n"
            #ifdef FIXED
            " and $3, %rdi\\n"
            #endif
            "1: lea 1b(%rip), %rax\\n movabs $base_table-1b, %rcx\\n add %rcx, %rax\\n movslq (%rax,%rdi,4), %rax\\n ret\\n.cfi_endproc\\n.size fetch,.-fetch\\n"
            ".section .rodata\\n.p2align 5\\nbase_table: .long 5, 6, 7, 8\\n.text\\n");
            long other(long n) { return table[n & 3] + table2[n & 1]; }
            """)
        try expectSound(pair, after: [Call("fetch", 1), Call("fetch", 5), Call("other", 1)])
    }

    /// A vector constant that must stay aligned, inside the code.
    @Test func alignedConstantInsideAFunction() throws {
        let pair = try Pair(
            """
            long other(long n) { return n * 3; }
            __asm__(".text\\n.p2align 6\\n.globl load\\n.type load,@function\\nload:\\n.cfi_startproc\\n jmp 1f\\n.p2align 5\\n2: .quad 1, 2, 3, 4\\n1: vmovdqa 2b(%rip), %ymm0\\n"
            #ifdef FIXED
            " vpaddq %ymm0, %ymm0, %ymm0\\n"
            #endif
            " vmovq %xmm0, %rax\\n vzeroupper\\n add %rdi, %rax\\n ret\\n.cfi_endproc\\n.size load,.-load\\n");
            """)
        try expectSound(pair, after: [Call("load", 1), Call("other", 2)])
    }

    @Test func relativeRelocationsInCompactForm() throws {
        guard let pair = try? Pair(Self.ordinary, Recipe(flags: ["-O2"], link: ["-fuse-ld=lld", "-Wl,-z,pack-relative-relocs"])) else {
            return
        }
        try expectSound(pair, before: [Call("sum", 5)], after: Self.calls)
    }

    /// Old objects hold the address of a function that nothing else calls.
    @Test func pointerStoredBeforeThePatch() throws {
        let pair = try Pair(
            """
            static long x;
            static long (*handler)(long);
            static long on_event(long n) {
            #ifdef FIXED
                if (n > 50) return -1;
            #endif
                long s = x; for (long i = 0; i < n; i++) s = s * 3 + i; return s; }
            long install(long n) { x = n; handler = on_event; return 0; }
            long fire(long n) { return handler ? handler(n) : -2; }
            long clear(long n) { handler = 0; return x + n; }
            """)
        try expectSound(pair, before: [Call("install", 3), Call("fire", 5)], after: [Call("fire", 60), Call("fire", 5)])
    }

    /// The fixed build no longer inlines what the old one did: the old copies are inside their callers.
    @Test func inlinedBeforeAndCalledAfter() throws {
        let pair = try Pair(
            """
            #ifdef FIXED
            static __attribute__((noinline)) long guard(long n) { return n > 100 ? 100 : n < 0 ? 0 : n; }
            #else
            static inline __attribute__((always_inline)) long guard(long n) { return n > 1000 ? 1000 : n; }
            #endif
            long a(long n) { return guard(n) * 3; }
            long b(long n) { return guard(n + 1) * 5; }
            long c(long n) { return n * 7; }
            """)
        let j = try expectSound(pair, after: [Call("a", 5000), Call("b", -7), Call("c", 1), Call("a", 7)])
        #expect(j.answer == .pass, "\(j)")
    }

    /// A program that ends itself by a store to where nothing is. Compilers leave out what would follow, so that the cold part ends
    /// without a jump.
    @Test(arguments: [1, 0, 4095]) func endsItselfByAStoreToTheFirstPage(_ address: Int) throws {
        let pair = try Pair(
            """
            static long seen;
            __attribute__((cold, noipa)) static void complain(long n) { seen += n; }
            #define BUG_ON(c) do { if (__builtin_expect(!!(c), 0)) { complain(7); *(volatile char *)\(address)L = 1; __builtin_unreachable(); } } while (0)
            long total(long n) { seen += n; return seen; }
            long check(long n) {
                BUG_ON(n == 77);
            #ifdef FIXED
                if (n < 0) return -1;
            #endif
                return n * 3 + seen; }
            long other(long n) { BUG_ON(n == 78); return seen - n; }
            """, Recipe(flags: ["-O2", "-fno-delete-null-pointer-checks"]))
        try expectSound(pair, before: [Call("total", 4)], after: [Call("check", -4), Call("check", 4), Call("other", 2)], answers: [.pass])
    }

    /// The last page that may be mapped begins where the first one ends: a store there goes on.
    @Test func storeToTheSecondPageIsNoEnd() throws {
        let pair = try Pair(
            """
            static long seen;
            __attribute__((cold, noipa)) static void complain(long n) { seen += n; }
            long check(long n) {
                if (__builtin_expect(n == 77, 0)) { complain(7); *(volatile char *)4096L = 1; __builtin_unreachable(); }
            #ifdef FIXED
                if (n < 0) return -1;
            #endif
                return n * 3 + seen; }
            """)
        let j = try pair.judge()
        #expect(j.codes.contains("falls-through"), "\(j)")
    }
}
