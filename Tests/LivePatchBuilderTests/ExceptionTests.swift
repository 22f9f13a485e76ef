// Attacks with C++: exceptions are thrown through, and caught in, code that a patch would carry without registering it.

import Testing

@Suite struct ExceptionTests {
    private func expectNoPass(_ source: String, sourceLocation: SourceLocation = #_sourceLocation) throws {
        let j = try Pair(sources: ["a.cc": source], Recipe(compiler: "g++")).judge()
        #expect(j.answer == .refuse, "\(j)", sourceLocation: sourceLocation)
    }

    /// No table of handlers: the exception only starts here.
    @Test func throwingWithoutAHandler() throws {
        try expectNoPass(
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
            """)
    }

    /// The exception only passes through.
    @Test func callingWhatThrows() throws {
        try expectNoPass(
            """
            extern "C" long use(long n);
            __attribute__((noinline)) static long deep(long n) { if (n > 7) throw 5; return n; }
            extern "C" long middle(long n) {
            #ifdef FIXED
                if (n < 0) return -1;
            #endif
                return deep(n) * 3 + 1; }
            extern "C" long use(long n) { try { return middle(n); } catch (int k) { return -k; } }
            """)
    }

    /// Nothing in the whole library catches.
    @Test func throwingToOthers() throws {
        try expectNoPass(
            """
            extern "C" long check(long n) {
            #ifdef FIXED
                if (n > 100) throw (int)n;
            #else
                if (n > 1000) throw (int)n;
            #endif
                return n * 3; }
            """)
    }

    /// The exception passes through a function that only the new build has, which is reached by a jump.
    @Test func newFunctionThatCallsWhatThrows() throws {
        try expectNoPass(
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
            """)
    }

    /// The code stays the same: only what is caught changes.
    @Test func onlyTheCaughtTypeChanged() throws {
        try expectNoPass(
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
            """)
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
