// What must be refused, or at least not passed: changes that live data, running threads or the loader cannot follow.
// Each test names the code that the operator sees.

import ELF
import LivePatch
import LivePatchBuilder
import ProcessControl
import Testing

@Suite struct RefusalTests {
    private func expectRefusal(_ pair: Pair, _ codes: Set<String>, sourceLocation: SourceLocation = #_sourceLocation) throws {
        let j = try pair.judge()
        #expect(j.answer == .refuse, "\(j)", sourceLocation: sourceLocation)
        #expect(j.codes.isSuperset(of: codes), "\(j)", sourceLocation: sourceLocation)
        #expect(j.patch == nil, sourceLocation: sourceLocation)
    }

    /// A list on the heap; `extra` stands before the fields that everybody uses.
    private static func list(_ before: String, _ after: String) -> String {
        """
        #include <stdlib.h>
        struct node {
            struct node *next;
        \(before)
            long key, value;
            unsigned char flag;
        \(after)
            long count;
        };
        static struct node *head;
        long add(long key, long value) {
            struct node *n = calloc(1, sizeof *n);
            n->key = key; n->value = value; n->flag = key & 1; n->count = 1; n->next = head; head = n;
            return key;
        }
        long find(long key) { for (struct node *n = head; n; n = n->next) if (n->key == key) { n->count++; return n->value; } return -1; }
        long total(void) { long s = 0; for (struct node *n = head; n; n = n->next) s += n->count * n->value; return s; }
        long flags(void) { long s = 0; for (struct node *n = head; n; n = n->next) s = s * 2 + n->flag; return s; }
        long change(long key, long value) { for (struct node *n = head; n; n = n->next) if (n->key == key) {
        #ifdef FIXED
            if (value < 0) return -2;
        #endif
            n->value = value; return n->flag; } return -1; }
        """
    }

    @Test func fieldAddedToAStructure() throws {
        try expectRefusal(
            try Pair(Self.list("#ifdef FIXED\n    long depth;\n#endif", "")), ["layout-changed"])
    }

    /// No size and no offset changes; only the new field's own uses show it.
    @Test func fieldInAnAlignmentHoleIsNotPassed() throws {
        let source = Self.list("", "#ifdef FIXED\n    unsigned short depth;\n#endif")
            .replacing("if (value < 0) return -2;", with: "if (value < 0 && n->depth++ > 5) return -2;")
        let j = try Pair(source).judge()
        #expect(j.answer == .review || j.answer == .refuse, "\(j)")
        #expect(j.codes.contains("new-displacement"), "\(j)")
    }

    @Test func allocationSizeChanged() throws {
        let source = Self.list("", "").replacing("long count;", with: "long count;\n#ifdef FIXED\nlong grown;\n#endif")
        let j = try Pair(source).judge()
        #expect(j.answer == .review || j.answer == .refuse, "\(j)")
        #expect(j.codes.contains("allocation-changed"), "\(j)")
    }

    @Test func globalStructureGrew() throws {
        try expectRefusal(
            try Pair(
                """
                #ifdef FIXED
                #define WORDS 12
                #else
                #define WORDS 8
                #endif
                struct state { long used; long words[WORDS]; } state;
                long push(long n) { if (state.used >= WORDS) return -1; state.words[state.used++] = n; return state.used; }
                long pop(void) { return state.used ? state.words[--state.used] : -1; }
                """), ["layout-object-size"])
    }

    /// The same without a name: neighbours show that the object between them is longer.
    @Test func staticArrayGrew() throws {
        try expectRefusal(
            try Pair(
                """
                #ifdef FIXED
                #define WORDS 12
                #else
                #define WORDS 8
                #endif
                static long before, words[WORDS], used, after;
                long push(long n) { if (used >= WORDS) return -1; words[used++] = n; return used; }
                long pop(void) { return used ? words[--used] : -1; }
                long peek(long n) { return words[n & 7] + used; }
                long more(long n) { before += n; after -= n; return before; }
                long less(long n) { before -= n; after += n; return after; }
                """), ["layout-data-grew"])
    }

    @Test func threadLocalStorageGrew() throws {
        try expectRefusal(
            try Pair(
                """
                __thread long depth;
                #ifdef FIXED
                __thread long limit = 5;
                #endif
                long enter(void) {
                #ifdef FIXED
                    if (depth > limit) return -1;
                #endif
                    return ++depth; }
                long leave(void) { return --depth; }
                """), ["tls-changed"])
    }

    @Test func initialDataChanged() throws {
        try expectRefusal(
            try Pair(
                """
                #ifdef FIXED
                static long limit = 10;
                #else
                static long limit = 1000;
                #endif
                long set(long n) { return limit = n; }
                long check(long n) { return n > limit ? -1 : n; }
                """), ["initial-data-changed"])
    }

    @Test func functionPointerSlotChangedItsSignature() throws {
        try expectRefusal(
            try Pair(
                """
                #ifdef FIXED
                #define EXTRA , long limit
                #define PASS , 100
                #else
                #define EXTRA
                #define PASS
                #endif
                struct ops { long (*open)(long); long (*read)(long, long EXTRA); long (*close)(long); };
                static long open_it(long n) { long s = 3; while (n > 0) { s += n & 9; n >>= 2; } return s; }
                static long read_it(long a, long b EXTRA) {
                    long s = 0;
                    for (long i = 0; i < a; i++) s ^= i * b;
                #ifdef FIXED
                    if (s > limit) return -1;
                #endif
                    return s; }
                static long close_it(long n) { long s = 5; while (n > 0) { s ^= n * 9; n >>= 3; } return s; }
                static struct ops ops = {open_it, read_it, close_it};
                void *table(void) { return &ops; }
                void *again(long n) { return n ? &ops : 0; }
                long run(long a, long b) { return ops.read(a, b PASS) + ops.open(a); }
                """), ["signature-changed"])
    }

    @Test func constructorChangedIsNotPassed() throws {
        let j = try Pair(
            """
            static long seed;
            __attribute__((constructor)) void start(void) {
            #ifdef FIXED
                seed = 0x1234567;
            #else
                seed = 3;
            #endif
            }
            long next(void) { return seed = seed * 5 + 1; }
            long reset(long n) { return seed = n; }
            """
        ).judge()
        #expect(j.answer != .pass && j.answer != .nothingToDo, "\(j)")
        #expect(j.codes.contains("runs-at-start"), "\(j)")
    }

    @Test func constructorAdded() throws {
        try expectRefusal(
            try Pair(
                """
                static long seed;
                #ifdef FIXED
                __attribute__((constructor)) static void start(void) { seed = 77; }
                #endif
                long next(void) { return seed = seed * 5 + 1; }
                long reset(long n) { return seed = n; }
                """), ["startup-changed"])
    }

    /// What is there in some processes only, or once for each thread.
    @Test(arguments: [
        "extern long optional(void) __attribute__((weak));",
        "extern __thread long optional_value; static long optional(void) { return optional_value; }",
    ])
    func newImport(declaration: String) throws {
        try expectRefusal(
            try Pair(
                """
                #include <stdlib.h>
                #include <string.h>
                \(declaration)
                long length(const char *s) { return strlen(s); }
                long parse(long n) { char s[8] = "123456";
                #ifdef FIXED
                    return optional() + n;
                #else
                    return n + s[0];
                #endif
                }
                """), ["new-import"])
    }

    @Test func computedGoto() throws {
        try expectRefusal(
            try Pair(
                """
                long run(const unsigned char *code, long n) {
                    static void *const labels[] = {&&add, &&mul, &&neg, &&end};
                    long s = 1;
                #ifdef FIXED
                    if (n > 1000) return -1;
                #endif
                    goto *labels[*code & 3];
                add: s += n; goto *labels[*++code & 3];
                mul: s *= n; goto *labels[*++code & 3];
                neg: s = -s; goto *labels[*++code & 3];
                end: return s;
                }
                long call(long n) { static const unsigned char code[] = {0, 1, 2, 0, 3}; return run(code, n); }
                """), [])
    }

    @Test func positionDependentProgram() throws {
        let workshop = try Workshop()
        _ = try workshop.write("main.c", "int main(void) { return 0; }\n")
        _ = try ChildProcess.runChecked(["gcc", "-O2", "-no-pie", "-Wl,--build-id", "main.c", "-o", "main"], directory: workshop.path)
        let bytes = try workshop.read("main")
        #expect(
            try failure { () throws(Failure) in try build(old: bytes, new: bytes, BuildContext(object: "main")) }.code
                == "position-dependent")
    }

    @Test func withoutBuildID() throws {
        let pair = try Pair("long f(long a) { return a; }\n", Recipe(link: ["-Wl,--build-id=none"]))
        let found = try failure { () throws(Failure) in
            try build(old: pair.old.stripped, new: pair.new.stripped, BuildContext(object: "libcase.so"))
        }
        #expect(found.code == "no-build-id")
        #expect(found.place == "libcase.so (old)")
        #expect(!found.remedy.isEmpty)
    }

    @Test func withoutUnwindData() throws {
        let pair = try Pair(
            "long f(long a) { return a; }\n", Recipe(flags: ["-O2", "-fno-asynchronous-unwind-tables"], link: ["-nostdlib"]))
        let found = try failure { () throws(Failure) in
            try build(old: pair.old.stripped, new: pair.new.stripped, BuildContext(object: "libcase.so"))
        }
        #expect(found.code == "no-unwind-data")
    }

    @Test func exportedFunctionRemoved() throws {
        try expectRefusal(
            try Pair(
                """
                long keep(long n) { return n * 3; }
                #ifndef FIXED
                long dangerous(long n) { return n ? 100 / n : 7; }
                #endif
                """), ["removed-function"])
    }
}

/// The failure that `body` throws; an issue when it throws none.
func failure<T>(_ body: () throws(Failure) -> T, sourceLocation: SourceLocation = #_sourceLocation) throws -> Failure {
    do {
        _ = try body()
    } catch { return error }
    throw Failure("none", "nothing failed")
}
