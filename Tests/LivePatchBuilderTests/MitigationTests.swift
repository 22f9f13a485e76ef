// The switch that makes one function return at once: it does that and nothing else, and says who is affected.

import ELF
import LivePatch
import LivePatchBuilder
import Testing

@Suite struct MitigationTests {
    private static let source = """
        #include <stdlib.h>
        #include <string.h>
        static __attribute__((noinline)) long decode(long n) { long s = 1; for (long i = 0; i < n; i++) s += s * i + n; return s; }
        static __attribute__((noinline)) char *find(long n) { char *p = malloc(n + 16); memset(p, (int)n, 16); return p; }
        static long count;
        static __attribute__((noinline)) void note(void) { count += 3; }
        long parse(long n) { long r = decode(n); if (r < 0) return -1; return r + 1; }
        long look(long n) { char *p = find(n); long c = p[3]; free(p); return c; }
        long tell(long n) { note(); return n + count; }
        """

    private func mitigated(_ function: String, _ value: Int64) throws -> (Pair, Mitigation) {
        let pair = try Pair(Self.source, Recipe(strip: ["--strip-debug"]))
        return (pair, try mitigate(pair.old.stripped, function: function, returning: value, BuildContext(object: "libcase.so")))
    }

    @Test func returnsAtOnce() throws {
        let (pair, made) = try mitigated("decode", -22)
        guard case .patch(let file) = made.result.outcome else {
            Issue.record("\(made.result.manifest.findings)")
            return
        }
        #expect(made.result.manifest.verdict == .review)
        #expect(made.callers.map(\.name) == ["parse"] && made.callers.map(\.use) == [.checked])
        #expect(made.result.manifest.findings.map(\.code) == ["mitigation"])
        let old = try Host(pair.workshop, pair.old.path), patched = try Host(pair.workshop, pair.old.path)
        try patched.apply(file)
        #expect(try old.call("parse", 4, 0) != -1)
        #expect(try patched.call("parse", 4, 0) == -1)
        #expect(try patched.call("look", 4, 0) == old.call("look", 4, 0))
    }

    @Test("a null pointer for a caller that follows it") func followed() throws {
        let (_, made) = try mitigated("find", 0)
        guard case .refused = made.result.outcome else {
            Issue.record("it would crash")
            return
        }
        #expect(made.result.manifest.findings.contains { $0.code == "result-followed" && $0.sentence.contains("look") })
    }

    @Test("an exported function has callers that nobody has seen") func exported() throws {
        let (_, made) = try mitigated("parse", -1)
        #expect(made.result.manifest.findings.map(\.code).contains("unseen-callers"))
    }

    @Test("a function without a result leaves every register alone") func withoutResult() throws {
        let (pair, made) = try mitigated("note", 7)
        guard case .patch(let file) = made.result.outcome else {
            Issue.record("\(made.result.manifest.findings)")
            return
        }
        let patch = try LivePatch(parsing: file, name: "note.fother")
        #expect(patch.contents[.text] == [0xc3])
        let patched = try Host(pair.workshop, pair.old.path)
        try patched.apply(file)
        #expect(try patched.call("tell", 5, 0) == 5)
    }

    @Test func unknownFunction() throws {
        #expect(throws: Failure.self) { try mitigated("nothing_of_the_kind", 0) }
    }
}
