// Two versions of a source package, compared as text: what stands inside functions only, and what a careless reader would
// take for that.

import Foundation
import LivePatch
import LivePatchBuilder
import Testing

/// Two trees of files, and what the comparison says about them.
private func compare(_ old: [String: String], _ new: [String: String]) throws -> SourceEvidence {
    let workshop = try Workshop()
    for (side, files) in [("old", old), ("new", new)] {
        for (path, text) in files {
            let file = workshop.path + "/\(side)/" + path
            try FileManager.default.createDirectory(
                atPath: (file as NSString).deletingLastPathComponent, withIntermediateDirectories: true)
            try Data(text.utf8).write(to: URL(fileURLWithPath: file))
        }
    }
    return try SourceComparison.compare(old: workshop.path + "/old", new: workshop.path + "/new")
}

/// One file whose text holds `from` in the old version and `to` in the new one.
private func compare(_ text: String, _ from: String, _ to: String, name: String = "a.c", also: [String: String] = [:]) throws
    -> SourceEvidence
{
    #expect(text.contains(from), "the text does not hold \(from)")
    var old = also, new = also
    old[name] = text
    new[name] = text.replacingOccurrences(of: from, with: to)
    return try compare(old, new)
}

private func codes(_ e: SourceEvidence) -> Set<String> { Set(e.findings.map(\.code)) }

@Suite struct SourceTests {
    @Test(
        "a change inside a function, whatever stands around it, leaves data as it is",
        arguments: [
            "int f(int a) { return a; }",
            "struct s { int a; };\nstatic struct s *f(struct s *p, int a)\n{\n    if (p) { p->a = a; }\n    return p;\n}\nint x = 3;",
            "int\nf(a)\n    int a;\n{\n    return a;\n}\n",
            "#define API __attribute__((visibility(\"default\")))\nAPI int f(int a) { while (a) a--; return a; }",
            "PHP_FUNCTION(f)\n{\n    return a;\n}\n",
            "int f(int a) __attribute__((noinline)) ;\n__attribute__((noinline)) int f(int a) { return a; }",
            "#ifdef __cplusplus\nextern \"C\" {\n#endif\n#include <x.h>\nint f(int a) { return a; }\n#ifdef __cplusplus\n}\n#endif\n",
            "#ifdef A\nint f(long a) {\n#else\nint f(int a) {\n#endif\n    return a;\n}\nint y;",
            "int f(int a) {\n#ifdef A\n    if (a) {\n#endif\n    a++;\n#ifdef A\n    }\n#endif\n    return a;\n}\nint y;",
            "int f(int a) {\n#if defined(A)\n    if (a) {\n#else\n    {\n#endif\n    return a; } }\n",
            "int f(int a) { const char *s = \"}\"; char c = '{'; /* } */ // }\n    return a; }\nint y;",
            "int f(int a) {\n#if 0\n it's } not C\n#endif\n    return a; }\nint y;",
            "int f(int a) { struct stat st; struct pair *p = 0; return sizeof(struct pair) + a; }",
            "void f(int a) { g(1); }",
            "#define STEP(x) \\\n    do { \\\n        x; \\\n    } while (0)\nint f(int a) { STEP(a++); return a; }",
        ])
    func inside(_ text: String) throws {
        for (from, to) in [
            ("return a;", "if (a < 0) return -1; return a;"), ("g(1);", "g(1); h(2);"), ("return sizeof", "a++; return sizeof"),
        ]
        where text.contains(from) {
            let e = try compare(text, from, to)
            #expect(e.answer == .agrees, "\(e.findings.map(\.sentence))")
            #expect(e.findings.isEmpty)
            #expect(e.changed == [text.hasPrefix("PHP") ? "a.c:PHP_FUNCTION(f)" : "a.c:f"])
        }
    }

    @Test("comments, blanks and line breaks are no change; a new helper and its prototype shape no data")
    func neutral() throws {
        let e = try compare(
            "int f(int a) { return a; }\nstruct s { int a; };", "struct s { int a; };", "/* new */ struct s\n{\n  int a; // first\n};")
        #expect(e.answer == .agrees && e.changed.isEmpty)
        let helper = try compare(
            "struct s;\nint f(int a) { return a; }", "struct s;",
            "struct s;\nstatic int check(const struct s *p, int a);\nstatic int check(const struct s *p, int a) { return a < 0; }")
        #expect(helper.answer == .agrees && helper.added == ["a.c:check"], "\(helper.findings.map(\.sentence))")
        let moved = try compare(
            ["a.c": "int f(int a) { return a; }\nint g(int a) { return 2; }\n"],
            ["a.c": "int g(int a) { return 2; }\nint f(int a) { return a; }\n"])
        #expect(moved.answer == .agrees)
    }

    @Test("what changed in a function is told by its lines, with two around them")
    func lines() throws {
        let text = "int x;\nint f(int a)\n{\n    a++;\n    a++;\n    a++;\n    a++;\n    return a;\n}\n"
        let e = try compare(text, "return a;", "return a + 1;")
        let change = try #require(e.changes.first)
        #expect(change.file == "a.c" && change.name == "f")
        #expect(change.lines == ["…", "     a++;", "     a++;", "-    return a;", "+    return a + 1;", " }"])
    }

    /// Old text, what changes in it, and the finding. All of these look like the inside of a function to somebody.
    struct Trap: Sendable, CustomTestStringConvertible {
        var text: String, from: String, to: String, code: String
        var name = "a.c"
        var testDescription: String { text.replacingOccurrences(of: "\n", with: " ").prefix(70) + "" }
        init(_ text: String, _ from: String, _ to: String, _ code: String, _ name: String = "a.c") {
            (self.text, self.from, self.to, self.code, self.name) = (text, from, to, code, name)
        }
    }

    static let traps: [Trap] = [
        // A field in an alignment hole is a line of a type.
        Trap("struct s { int a; long b; };\nint f(struct s *p) { return p->a; }", "int a;", "int a; int hole;", "source-type-changed"),
        Trap("typedef struct {\n int a;\n} s;", "int a;", "int a; char flag;", "source-type-changed"),
        Trap("union u { int a; long b; };", "long b;", "char b[32];", "source-type-changed"),
        Trap("enum { A, B, LAST };\nint table[LAST];", "B,", "B, C,", "source-enum-changed"),
        Trap("#define N 4\nint table[N];", "N 4", "N 8", "source-macro-changed"),
        Trap("#define FIELDS int a; \\\n    int b;\nstruct s { FIELDS };", "int b;", "int b; int c;", "source-macro-changed"),
        // Macros that make types look like functions.
        Trap("#define RECORD(n) struct n\nRECORD(s) { int a; };", "int a;", "int a; int b;", "source-unclear"),
        Trap(
            "#define PACKED(n) __attribute__((aligned(n)))\nstruct PACKED(8) { int a; } x;", "int a;", "int a; int b;",
            "source-type-changed"),
        Trap(
            "#define EXPORT\n#define ALIGNED(n) __attribute__((aligned(n)))\nstruct EXPORT ALIGNED(8) { int a; } x;", "int a;",
            "int a; int b;", "source-type-changed"),
        Trap("#define S struct\nS s { int a; };\n", "int a;", "int a; int b;", "source-unclear"),
        Trap("#define named(x) s\n#define S struct\nS named(int a) { int a; };\n", "{ int a;", "{ int a; int b;", "source-unclear"),
        // X-macros: one line of a list.
        Trap(
            "#define LIST \\\n    X(a) \\\n    X(b)\n#define X(n) int n;\nstruct s { LIST };", "X(b)", "X(b) X(c)", "source-macro-changed"),
        Trap("X(a)\nX(b)\n", "X(b)", "X(b)\nX(c)", "source-declaration-changed", "list.def"),
        // What outlives a call inside a function.
        Trap("int f(int i) { static const struct { int a; } t[] = { {1}, {2} }; return t[i].a; }", "{2}", "{3}", "source-local-changed"),
        Trap("int f(int i) { static int n = 1; return n; }", "= 1", "= 2", "source-local-changed"),
        Trap("#define local static\nint f(int i) { local int n = 1; return n; }", "= 1", "= 2", "source-local-changed"),
        Trap(
            "#define ONCE(x) do { static int once = x; (void)once; } while (0)\nint f(int i) { ONCE(1); return i; }", "ONCE(1)", "ONCE(2)",
            "source-local-changed"),
        Trap(
            "void *f(int i) { struct box { int a; }; struct box *p = malloc(sizeof *p); return p; }", "int a;", "int a; int b;",
            "source-local-changed"),
        Trap("int f(int i) { enum { N = 4 }; static int t[N]; return t[i]; }", "N = 4", "N = 8", "source-local-changed"),
        Trap(
            "int f(int i) { char small[4]; static char t[sizeof small]; return t[i] + small[i]; }", "small[4]", "small[8]",
            "source-local-changed"),
        Trap("int f(int i) { typedef int cell; static cell t; return t; }", "typedef int", "typedef long", "source-local-changed"),
        Trap("int f(int i) {\n#ifdef A\n    static int n;\n#endif\n    return 0; }", "#ifdef A", "#ifndef A", "source-local-changed"),
        Trap("int f(int i) {\n#define N 4\n    return N; }\nint t[N];", "N 4", "N 8", "source-macro-changed"),
        Trap(
            "int f(int i) {\n#pragma pack(1)\n    return 0; }\nstruct s { char a; int b; };", "pack(1)", "pack(2)",
            "source-declaration-changed"),
        // Braces that are not what they seem.
        Trap("#define END }\nint f(int i) { return i; END\nstruct s { int a; };", "int a;", "int a; int b;", "source-unclear"),
        Trap("#define END_AND(x) } x {\nint f(int i) { return i; END_AND(struct s) int a; };", "int a;", "int a; int b;", "source-unclear"),
        Trap(
            "int f(int i) {\n#ifdef A\n    return i; }\n#endif\nstruct s { int a; };\n#ifndef A\n}\n#endif\n", "int a;", "int a; int b;",
            "source-type-changed"),
        Trap(
            "#if 0\nint f(int i) {\n#endif\nstruct s { int a; };\n#if 0\n return i; }\n#endif\n", "int a;", "int a; int b;",
            "source-type-changed"),
        Trap("int f(int i) { return '\"'; }\nstruct s { int a; }; char *t = \"\";", "int a;", "int a; int b;", "source-type-changed"),
        Trap(
            "int f(int i) { /* \\*/ return i; }\nstruct s { int a; }; // \\\n int gone;\nint y;", "int a;", "int a; int b;",
            "source-type-changed"),
        Trap("int f(int i) <% return i; %>\nint y;", "return i;", "return 2;", "source-unclear"),
        Trap("int f(int i) { return i; ??>\nint y;", "return i;", "return 2;", "source-unclear"),
        Trap("#define return struct s {\nint f(int i) { return i; }", "int f", "int g", "source-unclear"),
        // A branch that one compiler run does not see.
        Trap(
            "#ifdef WIDE\nstruct s { long a; };\n#else\nstruct s { int a; };\n#endif\nint f(int i) { return i; }", "long a;",
            "long a; int b;", "source-type-changed"),
        Trap("#if A\nint x;\n#endif\n", "#if A", "#if A && B", "source-condition-changed"),
        Trap(
            "int f(int i) {\n#if A\n    return i;\n}\nint x;\nint g(int i) {\n#endif\n    return 2;\n}\n", "#if A", "#if B",
            "source-condition-changed"),
        // Initial values.
        Trap("static const struct { int a; } table[] = {\n    { 1 },\n    { 2 },\n};", "{ 2 }", "{ 3 }", "source-initialiser-changed"),
        Trap("int limit = 10;", "= 10", "= 20", "source-initialiser-changed"),
        Trap("int (*hook)(int) = first;", "first", "second", "source-initialiser-changed"),
        // Who calls through a pointer goes by the signature.
        Trap("static int f(int a) { return a; }\nint (*hook)();", "f(int a)", "f(int a, int b)", "source-signature-changed"),
        Trap("int f(a) int a; { return a; }", "int a; {", "long a; {", "source-declaration-changed"),
        Trap("int counter;\nint f(int a) { return a; }", "int counter;", "long counter;", "source-declaration-changed"),
        Trap("#include <a.h>\nint f(int a) { return a; }", "<a.h>", "<b.h>", "source-include-changed"),
        Trap("LIST_HEAD(h, s) head;", "head;", "head; LIST_HEAD(k, s) more;", "source-declaration-changed"),
        Trap("asm(\".data\\n.quad 1\");", "quad 1", "quad 2", "source-declaration-changed"),
        // C++.
        Trap("class c { int a; int get() { return a; } };", "int a;", "int a; int b;", "source-type-changed", "a.cc"),
        Trap(
            "class c { int a; int get() { return a; } };", "int get()", "virtual int more() { return 1; } int get()",
            "source-declaration-changed", "a.cc"),
        Trap("template <class T> struct box { T a; };", "T a;", "T a; T b;", "source-type-changed", "a.hh"),
        Trap(
            "auto hook = [](int a) { struct s { int x; }; return sizeof(s); };", "int x;", "int x; int y;", "source-initialiser-changed",
            "a.cc"),
        Trap("int f(int a) { auto g = [] { static int n = 1; return n; }; return g(); }", "= 1", "= 2", "source-local-changed", "a.cc"),
        Trap("int f(int a, int b = 1) { return a; }", "b = 1", "b = 2", "source-signature-changed", "a.cc"),
        Trap("constexpr int size(int a) { return 4; }\nint table[size(1)];", "return 4;", "return 8;", "source-unclear", "a.cc"),
        Trap("auto make(int a) { return 4; }\ndecltype(make(1)) x;", "return 4;", "return 4L;", "source-unclear", "a.cc"),
        Trap("int f(int a) { const int n = 4; static int t[n]; return t[a]; }", "n = 4", "n = 8", "source-local-changed", "a.cc"),
        Trap("const char *s = R\"(}\")\";\nstruct s { int a; };", "int a;", "int a; int b;", "source-type-changed", "a.cc"),
        Trap("struct s { int a{1}; };", "{1}", "{2}", "source-unclear", "a.cc"),
        Trap("namespace n { struct s { int a; }; }", "int a;", "int a; int b;", "source-type-changed", "a.cc"),
    ]

    @Test("what shapes data is seen, whatever it looks like", arguments: traps)
    func trap(_ t: Trap) throws {
        let e = try compare(t.text, t.from, t.to, name: t.name)
        #expect(e.answer != .agrees, "\(e.findings.map(\.sentence))")
        #expect(codes(e).contains(t.code), "\(e.findings.map { $0.key + " " + $0.sentence })")
        for f in e.findings { #expect(!f.sentence.isEmpty && !f.remedy.isEmpty && f.verdict == .review) }
    }

    @Test("an inline method, a template's body, a lambda inside a function: their statements are statements")
    func cPlusPlus() throws {
        for text in [
            "class c { int a; int get() { return a; } };", "template <class T> T f(T a) { return a; }",
            "int f(int a) { auto g = [](int a) { return a; }; return g(a); }",
            "namespace n { int C::f(int a) const noexcept { return a; } }",
            "C::C(int x) : a(x), b(2) { if (a) return a; }",
        ] {
            let e = try compare(text, "return a;", "return a + 1;", name: "a.cc")
            #expect(e.answer == .agrees, "\(text): \(e.findings.map(\.sentence))")
            #expect(e.changed.count == 1)
        }
    }

    @Test("files that do not go into the build say nothing; those that may, and how it is done, leave the answer open")
    func files() throws {
        let code = ["a.c": "int f(int a) { return a; }"]
        for path in ["debian/changelog", "README.md", "doc/manual.txt", "tests/run.c", "po/de.po", "src/testcode/t.h", "a.1"] {
            let e = try compare(code.merging([path: "struct s { int a; };"]) { $1 }, code.merging([path: "struct s { long a; };"]) { $1 })
            #expect(e.answer == .agrees, "\(path)")
        }
        for (path, finding) in [
            ("configure.ac", "source-build-changed"), ("src/Makefile.am", "source-build-changed"), ("debian/rules", "source-build-changed"),
            ("gen.py", "source-unclear"), ("parse.y", "source-unclear"), ("a.S", "source-unclear"),
            ("debian/patches/x.patch", "source-build-changed"),
        ] {
            let e = try compare(code.merging([path: "one"]) { $1 }, code.merging([path: "two"]) { $1 })
            #expect(e.answer == .unknown, "\(path)")
            #expect(codes(e) == [finding], "\(path)")
        }
        // With this format the patches are in the tree.
        let quilt = code.merging(["debian/source/format": "3.0 (quilt)\n"]) { $1 }
        let e = try compare(
            quilt.merging(["debian/patches/x.patch": "one"]) { $1 }, quilt.merging(["debian/patches/x.patch": "two"]) { $1 })
        #expect(e.answer == .agrees)
        // A header of the tests that the product includes.
        let shared = ["a.c": "#include \"tests/s.h\"\nint f(int a) { return a; }", "tests/s.h": "struct s { int a; };"]
        let s = try compare(shared, shared.merging(["tests/s.h": "struct s { int a; int b; };"]) { $1 })
        #expect(s.answer == .differs && codes(s) == ["source-type-changed"])
        let control = quilt.merging(["debian/control": "Source: a\nBuild-Depends: b,\n c\nMaintainer: x\n"]) { $1 }
        #expect(
            try compare(control, control.merging(["debian/control": "Source: a\nBuild-Depends: b,\n c\nMaintainer: y\n"]) { $1 }).answer
                == .agrees)
        #expect(
            try compare(control, control.merging(["debian/control": "Source: a\nBuild-Depends: b,\n d\nMaintainer: x\n"]) { $1 }).answer
                == .unknown)
    }

    @Test("text that nobody wrote makes the reader neither fail nor agree with a changed type", arguments: 0..<200)
    func random(_ seed: UInt64) throws {
        var state = seed &* 0x9e37_79b9_7f4a_7c15 | 1
        func next(_ n: Int) -> Int {
            state ^= state << 13
            state ^= state >> 7
            state ^= state << 17
            return Int(state % UInt64(n))
        }
        let words = [
            "struct", "{", "}", "(", ")", ";", "int", "a", "#if A\n", "#else\n", "#endif\n", "#define X {\n", "static", "=", "return", "\"",
            "'", "/*", "*/", "\n",
            "\\\n", "enum", ",", "template", "<", ">", "R\"(", "extern \"C\"", "typedef", "[", "]", "#", "//", ":", "union",
        ]
        let noise = (0..<next(60)).map { _ in words[next(words.count)] }.joined(separator: " ")
        let text = noise + "\nstruct s { int field; };\n" + (0..<next(30)).map { _ in words[next(words.count)] }.joined(separator: " ")
        // Where the noise makes the type a comment, a literal or code that is switched off, there is nothing to see.
        let e = try compare(text, "int field;", "int field; int more;")
        let isSwallowed = noise.contains("/*") || noise.contains("//") || noise.contains("\"") || noise.contains("'")
        #expect(e.answer != .agrees || isSwallowed, "seed \(seed): \(text)")
    }
}
