// Attacks with C++: exceptions are thrown from, through and caught in code that a patch carries.

import ELF
import LivePatch
import LivePatchBuilder
import Testing

@Suite struct ExceptionTests {
    /// The patched process answers like the fixed build, exceptions included; and the patch says that it needs an unwinder.
    private func expect(
        _ source: String, _ calls: [Call], moved: Set<String>, answers: Set<Judgement.Answer> = [.pass], flags: [String] = ["-O2"],
        sourceLocation: SourceLocation = #_sourceLocation
    ) throws {
        let pair = try Pair(sources: ["a.cc": source], Recipe(compiler: "g++", flags: flags))
        let j = try expectSound(pair, after: calls, answers: answers, sourceLocation: sourceLocation)
        #expect(j.moved.isSuperset(of: moved), "\(j)", sourceLocation: sourceLocation)
        if j.patch != nil { #expect(j.result.manifest.needsUnwinder == true, "\(j)", sourceLocation: sourceLocation) }
    }

    /// No table of handlers: the exception only starts here.
    @Test func throwingWithoutAHandler() throws {
        try expect(
            """
            extern "C" long check(long n);
            long check(long n) {
            #ifdef FIXED
                if (n > 100) throw (int)n;
            #else
                if (n > 1000) throw (int)n;
            #endif
                return n * 3; }
            extern "C" long use(long n) { try { return check(n); } catch (int k) { return -k; } }
            """, [Call("use", 5), Call("use", 500), Call("use", 5000), Call("use", 101)], moved: ["check"])
    }

    /// The exception only passes through.
    @Test func callingWhatThrows() throws {
        try expect(
            """
            extern "C" long use(long n);
            __attribute__((noinline)) static long deep(long n) { if (n > 7) throw 5; return n; }
            extern "C" long middle(long n) {
            #ifdef FIXED
                if (n < 0) return -1;
            #endif
                return deep(n) * 3 + 1; }
            extern "C" long use(long n) { try { return middle(n); } catch (int k) { return -k; } }
            """, [Call("use", 5), Call("use", 8), Call("use", -8), Call("middle", 3)], moved: ["middle"])
    }

    /// Nothing in the whole library catches.
    @Test func throwingToOthers() throws {
        try expect(
            """
            extern "C" long check(long n) {
            #ifdef FIXED
                if (n > 100) throw (int)n;
            #else
                if (n > 1000) throw (int)n;
            #endif
                return n * 3; }
            """, [Call("check", 5), Call("check", 100)], moved: ["check"])
    }

    /// The exception passes through a function that only the new build has, which is reached by a jump.
    @Test func newFunctionThatCallsWhatThrows() throws {
        try expect(
            """
            __attribute__((noipa)) static long deep(long n) { if (n > 7) throw 5; return n; }
            #ifdef FIXED
            __attribute__((noipa)) static long between(long n) { return deep(n) * 3 + 1; }
            #endif
            extern "C" long middle(long n) {
            #ifdef FIXED
                if (n > 3) return between(n);
            #endif
                return n * 31 + (n >> 3); }
            extern "C" long use(long n) { try { return middle(n) + deep(n); } catch (int k) { return -k; } }
            """, [Call("use", 5), Call("use", 8), Call("middle", 5)], moved: ["middle"])
    }

    /// The code stays the same: only what is caught changes.
    @Test func onlyTheCaughtTypeChanged() throws {
        try expect(
            """
            struct A { long n; };
            struct B { long n; };
            #ifdef FIXED
            typedef A T;
            #else
            typedef B T;
            #endif
            extern "C" long thrower(long n) { if (n == 1) throw A{n}; if (n == 2) throw B{n}; return n; }
            extern "C" long use(long n) { try { return thrower(n); } catch (const T &t) { return -t.n; } }
            extern "C" long both(long n) { try { return thrower(n); } catch (const A &t) { return -t.n; } catch (const B &t) { return -t.n * 2; } }
            """, [Call("use", 1), Call("use", 3), Call("both", 1), Call("both", 2)], moved: ["use"])
    }

    /// The old build throws nothing itself: what it takes to do so is found in the process.
    @Test func newException() throws {
        try expect(
            """
            #include <string>
            #include <stdexcept>
            extern "C" long size(long n);
            static __attribute__((noinline)) std::string make(long n) {
            #ifdef FIXED
                if (n > 100) throw std::runtime_error("too long");
            #endif
                return std::string(n, 'x'); }
            extern "C" long size(long n) { try { return make(n).size(); } catch (const std::exception &e) { return -1; } }
            """, [Call("size", 5), Call("size", 100), Call("size", 101)], moved: ["_ZL4makel"])
    }

    /// The fix is in a function that catches, with objects to destroy on the way and a part that is rarely run.
    @Test func catchingAndCleaningUp() throws {
        try expect(
            """
            #include <stdexcept>
            #include <string>
            static long alive;
            struct Counted { Counted() { alive++; } ~Counted() { alive--; } };
            extern "C" __attribute__((noipa)) long thrower(long n) {
                if (n == 1) throw std::runtime_error("one");
                if (n == 2) throw (int)7;
                if (n == 3) throw std::string("three");
                if (n == 4) throw 4.0;
                return n; }
            extern "C" long use(long n) {
                Counted a;
                try {
                    Counted b;
            #ifdef FIXED
                    if (n < 0) return -100;
            #endif
                    return thrower(n) * 2 + thrower(n + 10);
                } catch (const std::exception &e) { return -1 - e.what()[0]; }
                catch (int k) { return -k; }
                catch (...) { Counted c; return thrower(5) + 1000; }
            }
            extern "C" long living(void) { return alive; }
            extern "C" long lives(long n) { long before = alive; alive = n; return before; }
            """,
            (-3...6).map { Call("use", $0) } + [Call("living")], moved: ["use"], answers: [.pass, .review])
    }

    /// A type without a name outside its file is the same type when its name is there once.
    @Test func catchingALocalType() throws {
        try expect(
            """
            namespace { struct Local { long n; }; struct Derived : Local { Derived(long k) : Local{k} {} }; }
            __attribute__((noipa)) static void thrower(long n) { if (n > 5) throw Derived(n); if (n == 3) throw Local{3}; }
            extern "C" long use(long n) {
            #ifdef FIXED
                if (n == 4) return 44;
            #endif
                try { thrower(n); return n; } catch (const Derived &d) { return -d.n; } catch (const Local &l) { return -l.n * 100; } }
            extern "C" long other(long n) { try { thrower(n); return n; } catch (const Local &l) { return l.n; } }
            """, (2...7).flatMap { [Call("use", $0), Call("other", $0)] }, moved: ["use"])
    }

    /// C code that cleans up after exceptions of others.
    @Test func cleanupInC() throws {
        let pair = try Pair(
            sources: [
                "a.cc": """
                extern "C" long middle(long n, long *count);
                extern "C" __attribute__((noipa)) long thrower(long n) { if (n > 7) throw 5; return n; }
                extern "C" long use(long n) { long count = n == 6 ? n : 0; try { return middle(n, &count); } catch (int k) { return -k - 10 * count; } }
                """,
                "b.c": """
                long thrower(long n);
                static void count(long **p) { ++**p; }
                long middle(long n, long *counter) {
                    __attribute__((cleanup(count))) long *p = counter;
                #ifdef FIXED
                    if (*counter > 5) return -3;
                #endif
                    return thrower(n) * 3 + *p; }
                """,
            ], Recipe(compiler: "gcc", flags: ["-O2", "-fexceptions"], link: ["-lstdc++"]))
        let j = try expectSound(pair, after: [Call("use", 5), Call("use", 9), Call("use", 6)], answers: [.pass])
        #expect(j.moved.contains("middle"), "\(j)")
    }

    /// A type that the old build never named: there is nothing that a handler could compare with.
    @Test func catchingANewType() throws {
        let pair = try Pair(
            sources: [
                "a.cc": """
                #include <new>
                extern "C" __attribute__((noipa)) long thrower(long n) { if (n == 1) throw 1; if (n == 2) throw std::bad_alloc(); return n; }
                extern "C" long use(long n) {
                    try { return thrower(n); } catch (int k) { return -k; }
                #ifdef FIXED
                    catch (const long &k) { return -2 * k; }
                #endif
                }
                """
            ], Recipe(compiler: "g++"))
        let j = try pair.judge()
        #expect(j.answer == .refuse, "\(j)")
    }

    /// Tables of exceptions and unwind data that no compiler wrote: whatever is said of them, it is said.
    @Test func tablesThatNobodyWrote() throws {
        let source = """
            #include <stdexcept>
            extern "C" __attribute__((noipa)) long thrower(long n) { if (n > 5) throw std::runtime_error("x"); if (n == 3) throw 3; return n; }
            extern "C" long use(long n) {
            #ifdef FIXED
                if (n == 4) return 44;
            #endif
                try { return thrower(n); } catch (const std::exception &e) { return -1; } catch (int k) { return -k; } }
            extern "C" long other(long n) noexcept { return thrower(n) + 1; }
            extern "C" long third(long n) throw(int) { return thrower(n) + 2; }
            """
        let pair = try Pair(sources: ["a.cc": source], Recipe(compiler: "g++", flags: ["-O2", "-std=c++14"]))
        let file = try ELFFile(pair.new.stripped, name: "new")
        let tables = try [".gcc_except_table", ".eh_frame"].map { name in
            let section = try #require(file.section(name))
            return Int(section.offset.value)..<Int(section.offset.value) + section.size
        }
        var generator = SeededRandom(7)
        for _ in 0..<150 {
            var bytes = pair.new.stripped
            for _ in 0..<Int.random(in: 1...4, using: &generator) {
                let at = Int.random(in: try #require(tables.randomElement(using: &generator)), using: &generator)
                bytes[at] = [0, 0x7f, 0x80, 0xff, .random(in: 0...255, using: &generator)].randomElement(using: &generator) ?? 0
            }
            do throws(Failure) {
                _ = try build(old: pair.old.stripped, new: bytes, BuildContext(object: "libcase.so"))
            } catch {
                #expect(!error.code.isEmpty)
            }
        }
    }

    /// C++ in which nothing can throw is like C.
    @Test func leafFunctionInCPlusPlus() throws {
        let pair = try Pair(
            sources: [
                "a.cc": """
                struct S { long a, b; };
                extern "C" long leaf(long n) {
                #ifdef FIXED
                    if (n < 0) return -1;
                #endif
                    long s = 0; for (long i = 0; i < n; i++) s = s * 3 + i; return s; }
                extern "C" long use(long n) { try { if (n > 5) throw 3; return n; } catch (int k) { return -k; } }
                """
            ], Recipe(compiler: "g++"))
        let j = try expectSound(pair, after: [Call("leaf", 5), Call("leaf", -5)])
        #expect(j.answer == .pass, "\(j)")
    }
}
