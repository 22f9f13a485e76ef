// What two stripped files cannot say, and what debug information and sources say instead: layouts, holes included.

import ELF
import Foundation
import LivePatch
import LivePatchBuilder
import ProcessControl
import Testing

@Suite struct EvidenceTests {
    /// Both builds made with -g and stripped; their debug files stand beside them.
    private func judged(
        _ source: String, _ flags: [String] = ["-g"], compiler: String = "gcc", name: String = "a.c", debug: Bool = true,
        evidence: [LayoutEvidence] = []
    ) throws -> BuildResult {
        let pair = try Pair(sources: [name: source], Recipe(compiler: compiler, flags: ["-O2", "-fno-exceptions"] + flags))
        var context = BuildContext(object: "usr/lib/libcase.so")
        context.evidence = evidence
        if debug { (context.oldDebug, context.newDebug) = (pair.old.full, pair.new.full) }
        return try build(old: pair.old.stripped, new: pair.new.stripped, context)
    }
    private func codes(_ r: BuildResult) -> Set<String> { Set(r.manifest.findings.map(\.code)) }

    private static let plain = """
        struct item { int kind; long value; struct item *next; };
        static struct item first = { 1, 2, 0 };
        long scale(long a, long b) { return first.value * a + b; }
        long check(long n, long limit) {
        #ifdef FIXED
            if (n < 0) return -1;
        #endif
            return n > limit ? limit : n;
        }
        """

    @Test("two stripped files alone leave the patch to a person, and say what would settle it")
    func strippedAlone() throws {
        let r = try judged(Self.plain, debug: false)
        #expect(r.manifest.verdict == .review && codes(r) == ["layout-unproved"])
        #expect(r.manifest.findings.first?.key == "layout-unproved:libcase.so")
        #expect(r.manifest.evidence == ["binary", "dwarf: absent"])
    }

    @Test(
        "debug information that agrees makes it a pass, in every version of DWARF, of either compiler's making",
        arguments: [
            ["-g"], ["-gdwarf-2"], ["-gdwarf-3"], ["-gdwarf-4"], ["-gdwarf-5"], ["-gdwarf-4", "-fdebug-types-section"],
            ["-gdwarf-5", "-fdebug-types-section"],
            ["-g", "-gdwarf64"], ["-g3"], ["-g", "-flto"], ["-g", "-gno-strict-dwarf", "-freorder-blocks-and-partition", "-O3"],
        ])
    func agrees(_ flags: [String]) throws {
        let r = try judged(Self.plain, flags)
        #expect(r.manifest.verdict == .pass, "\(r.manifest.findings.map(\.key))")
        #expect(r.manifest.evidence == ["binary", "dwarf: agrees"])
    }

    /// What the fixed build has otherwise, in a program whose other code does not tell.
    static let changes: [(String, String)] = [
        // A field in an alignment hole: no size and no distance of the others changes.
        ("struct item { int kind;\n#ifdef FIXED\nint flags;\n#endif\nlong value; };", "type-layout-changed"),
        ("struct item { int kind; long value;\n#ifdef FIXED\nlong more;\n#endif\n};", "type-layout-changed"),
        ("struct item { int kind; long value : \n#ifdef FIXED\n40\n#else\n41\n#endif\n; };", "type-layout-changed"),
        (
            "struct item { int kind : 3;\n#ifdef FIXED\nint b : 2; int a : 2;\n#else\nint a : 2; int b : 2;\n#endif\nlong value; };",
            "type-layout-changed"
        ),
        (
            "struct inner { int a;\n#ifdef FIXED\nint b;\n#endif\n};\nstruct item { int kind; long value; struct inner in; };",
            "type-layout-changed"
        ),
        ("struct item { int kind; long value; int (*call)(int\n#ifdef FIXED\n, int\n#endif\n); };", "type-layout-changed"),
        (
            "typedef struct { int kind;\n#ifdef FIXED\nint flags;\n#endif\nlong value; } item_t;\nstruct item { int kind; long value; item_t t; };",
            "type-layout-changed"
        ),
        ("enum kind { A, B,\n#ifdef FIXED\nC,\n#endif\nLAST };\nstruct item { int kind; long value; enum kind k; };", "type-enum-changed"),
        (
            "#ifdef FIXED\nstruct newer { int kind; int flags; long value; };\n#define item newer\n#else\nstruct item { int kind; long value; };\n#endif\n",
            "type-replaced"
        ),
    ]

    @Test("a changed layout is seen, in holes, bit-fields, inner types and function pointers too", arguments: changes)
    func differs(_ change: String, _ code: String) throws {
        let r = try judged(
            change + """

                extern struct item *get(void);
                extern int use(struct item);
                long check(long n, long limit) {
                    struct item *p = (struct item *)limit;
                    if (n == 5) return use(*p);
                #ifdef FIXED
                    if (n < 0) return -1;
                #endif
                    return n > limit ? limit : n + p->value + p->kind;
                }
                long use_it(long n) { struct item *p = (struct item *)n; return p->value; }
                """)
        #expect(r.manifest.verdict != .pass)
        #expect(codes(r).contains(code), "\(r.manifest.findings.map { $0.key + " " + $0.sentence })")
        #expect(r.manifest.evidence.contains("dwarf: differs"))
    }

    @Test("C++: a virtual function more, a class defined apart, a member of a template")
    func cPlusPlus() throws {
        func source(_ types: String) -> String {
            types + """

                extern "C" long check(long n) {
                    C *p = (C *)n;
                #ifdef FIXED
                    if (!n) return -1;
                #endif
                    return p->value();
                }
                long C::value() { return a; }
                """
        }
        let same = try judged(source("struct C { long a; virtual long value(); };"), compiler: "g++", name: "a.cc")
        #expect(same.manifest.evidence.contains("dwarf: agrees"), "\(same.manifest.findings)")
        for types in [
            "struct C { long a;\n#ifdef FIXED\nvirtual long first();\n#endif\nvirtual long value(); };\n#ifdef FIXED\nlong C::first() { return 1; }\n#endif\n",
            "template <class T> struct box { int a;\n#ifdef FIXED\nint hole;\n#endif\nT t; };\nstruct C { long a; box<long> b; virtual long value(); };",
            "struct outer { struct D; };\nstruct outer::D { int x;\n#ifdef FIXED\nint hole;\n#endif\nlong y; };\nstruct C : outer::D { long a; virtual long value(); };",
        ] {
            let r = try judged(source(types), compiler: "g++", name: "a.cc")
            #expect(codes(r).contains("type-layout-changed"), "\(types): \(r.manifest.findings.map(\.key))")
        }
    }

    @Test("functions without debug information leave the answer open")
    func uncovered() throws {
        let half = try Pair(sources: ["a.c": "long triple(long a) { return a * 3; }", "b.c": Self.plain])
        // Only one of the two source files has it: the patched one does not.
        let folder = half.workshop.path
        for side in ["old", "new"] {
            _ = try ChildProcess.runChecked(["gcc", "-g", "-O2", "-fPIC", "-c", "a.c", "-o", "a.c.o"], directory: folder + "/" + side)
            _ = try ChildProcess.runChecked(
                ["gcc", "-shared", "-Wl,--build-id", "a.c.o", "b.c.o", "-o", "part.so"], directory: folder + "/" + side)
        }
        let r = try build(
            old: half.workshop.read("old/part.so"), new: half.workshop.read("new/part.so"), BuildContext(object: "part.so"))
        #expect(r.manifest.evidence == ["binary", "dwarf: unknown"])
        #expect(codes(r) == ["layout-unproved"])
    }

    @Test("a patch can be explained: the instructions of both builds side by side, for each of its functions")
    func explained() throws {
        let pair = try Pair(sources: ["a.c": Self.plain])
        var context = BuildContext(object: "a")
        #expect(try build(old: pair.old.stripped, new: pair.new.stripped, context).explanation.isEmpty)
        context.explains = true
        let explanation = try build(old: pair.old.stripped, new: pair.new.stripped, context).explanation
        let check = try #require(explanation.first)
        #expect(explanation.map(\.name) == ["check"])
        #expect(check.rows.contains { $0.old == nil && $0.new != nil } && check.rows.contains { $0.isSame })
        #expect(check.rows.compactMap(\.old).last?.hasPrefix("ret") ?? false)
    }

    @Test("a debug file of another build is not taken")
    func mismatch() throws {
        let pair = try Pair(sources: ["a.c": Self.plain], Recipe(flags: ["-g", "-O2"]))
        var context = BuildContext(object: "a")
        context.oldDebug = pair.new.full
        #expect {
            _ = try build(old: pair.old.stripped, new: pair.new.stripped, context)
        } throws: { ($0 as? Failure)?.code == "debug-mismatch" }
    }

    @Test("sources that agree make it a pass; one finding of theirs leaves it to a person; absent ones say why")
    func sources() throws {
        let agrees = try judged(Self.plain, debug: false, evidence: [LayoutEvidence("source", .agrees)])
        #expect(agrees.manifest.verdict == .pass && agrees.manifest.evidence == ["binary", "source: agrees", "dwarf: absent"])
        let finding = Finding("source-macro-changed", "a.h:3", "the macro N is new or changed.", remedy: "To decide: x", verdict: .review)
        let differs = try judged(Self.plain, evidence: [LayoutEvidence("source", .differs, findings: [finding])])
        #expect(differs.manifest.verdict == .review && codes(differs) == ["source-macro-changed"])
        let absent = try judged(
            Self.plain, debug: false, evidence: [LayoutEvidence(absent: "source", because: "the archive is closed today.")])
        #expect(absent.manifest.findings.first?.sentence.contains("the archive is closed today") ?? false)
    }

    @Test("debug information with any byte changed is refused or read, and never ends the reader", arguments: 0..<4)
    func damaged(_ part: Int) throws {
        let pair = try Pair(
            sources: ["a.c": Self.plain], Recipe(flags: ["-g", "-O2"] + (part % 2 == 0 ? [] : ["-gdwarf-4", "-fdebug-types-section"])))
        let whole = try ELFFile(pair.old.full, name: "whole")
        var seed = UInt64(part) &+ 0x1234_5678
        for name in [".debug_info", ".debug_abbrev", ".debug_rnglists", ".debug_str"] {
            guard let section = whole.section(name), section.size > 0 else { continue }
            for _ in 0..<150 {
                seed = seed &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
                var bytes = pair.old.full
                let at = Int(section.offset.value) + Int(seed >> 33) % section.size
                bytes[at] = UInt8(truncatingIfNeeded: seed >> 20)
                if let file = try? ELFFile(bytes, name: "damaged") { _ = try? DebugTypes(file) }
            }
        }
    }

    @Test("code of a package's tests counts for objects that may be tests, and for no others")
    func testsAsObjects() throws {
        let pair = try Pair(Self.plain)
        let folder = pair.workshop.path
        for (side, field) in [("before", ""), ("after", " char b;")] {
            try FileManager.default.createDirectory(atPath: "\(folder)/\(side)/tests", withIntermediateDirectories: true)
            _ = try pair.workshop.write(
                "\(side)/tests/t.c", "struct item { char a;\(field) long value; };\nlong f(struct item *i) { return i->value; }\n")
        }
        let sources = LayoutEvidence(try SourceComparison.compare(old: folder + "/before", new: folder + "/after"))
        func judged(_ object: String) throws -> BuildResult {
            var context = BuildContext(object: object)
            context.evidence = [sources]
            return try build(old: pair.old.stripped, new: pair.new.stripped, context)
        }
        #expect(try judged("usr/lib/libcase.so").manifest.verdict == .pass)
        let test = try judged("usr/libexec/installed-tests/case")
        #expect(test.manifest.verdict == .review && codes(test) == ["source-type-changed"], "\(test.manifest.findings.map(\.key))")
    }

    /// A static function with another argument in the fixed build, and what else the file has.
    private func redeclared(_ otherwise: String, strip: [String] = [], name: String = "a.c") throws -> BuildResult {
        let head = "static long seen;\nlong count(long n) { return seen += n; }\n"
        let tail = "\nlong last(long n) { return seen - n; }\n"
        let callers = "long check(long n) { return limit(n%) + seen; }\nlong twice(long n) { return limit(2 * n%) - seen; }"
        func source(_ fixed: Bool) -> String {
            head
                + "__attribute__((noinline)) static long limit(long n\(fixed ? ", long most" : "")) { return n > \(fixed ? "most" : "100") ? 7 : n * seen; }\n"
                + otherwise + callers.replacing("%", with: fixed ? ", 50" : "") + tail
        }
        var recipe = Recipe(flags: ["-O2", "-g"])
        recipe.strip = strip
        let pair = try Pair(old: [(name, source(false))], new: [(name, source(true))], recipe)
        let folder = pair.workshop.path
        for (side, fixed) in [("before", false), ("after", true)] {
            try FileManager.default.createDirectory(atPath: "\(folder)/\(side)", withIntermediateDirectories: true)
            _ = try pair.workshop.write("\(side)/\(name)", source(fixed))
        }
        var context = BuildContext(object: "usr/lib/libcase.so")
        context.evidence = [LayoutEvidence(try SourceComparison.compare(old: folder + "/before", new: folder + "/after"))]
        // `strip` without options would take all away.
        let isStripped = !strip.isEmpty
        return try build(old: isStripped ? pair.old.stripped : pair.old.full, new: isStripped ? pair.new.stripped : pair.new.full, context)
    }

    @Test("a static function that is declared otherwise is settled where symbols show that nobody has a pointer to it")
    func redeclaredWithoutPointer() throws {
        let r = try redeclared("")
        #expect(r.manifest.verdict == .pass, "\(r.manifest.findings.map(\.key))")
        #expect(r.manifest.evidence.contains("source: agrees (no pointers to redeclared functions)"), "\(r.manifest.evidence)")
    }

    @Test(
        "and is left to a person where somebody may have one, or where nothing shows it",
        arguments: [
            "long (*const table[2])(long) = {(long (*)(long))limit, 0};\n", "void *give(void) { return (void *)limit; }\n",
            "static long (*held)(long);\nvoid hold(void) { held = (long (*)(long))limit; }\nlong use(long n) { return held ? held(n) : 0; }\n",
        ])
    func redeclaredWithPointer(_ pointer: String) throws {
        let r = try redeclared(pointer)
        #expect(codes(r).contains("source-signature-changed") && r.manifest.verdict != .pass, "\(r.manifest.findings.map(\.key))")
    }

    @Test("and where the builds are stripped, or in C++")
    func redeclaredUnseen() throws {
        let stripped = try redeclared("", strip: ["--strip-unneeded"])
        #expect(codes(stripped).contains("source-signature-changed"), "\(stripped.manifest.findings.map(\.key))")
        let other = try redeclared("", name: "a.cc")
        #expect(codes(other).contains("source-signature-changed"), "\(other.manifest.findings.map(\.key))")
    }
}
