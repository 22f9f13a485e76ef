// Where the jump is written at a function's entry: behind ENDBR64, which indirect branches of hardened builds must find.

import ELF
import LivePatch
import Testing

@Suite struct EntryTests {
    private static let source = """
        long price(long n) {
        #ifdef FIXED
            if (n < 0) return 0;
        #endif
            long s = 0;
            for (long i = 0; i < n; i++) s += i * n;
            return s + 3;
        }
        """

    @Test("ENDBR64 stays where it is, and the jump lies behind it", arguments: [true, false])
    func endbr(_ isHardened: Bool) throws {
        let pair = try Pair(Self.source, Recipe(flags: ["-O2", "-fcf-protection=\(isHardened ? "full" : "none")"]))
        let judgement = try pair.judge()
        let file = try #require(judgement.patch, "\(judgement)")
        let patch = try LivePatch(parsing: file, name: "case.fother")
        let bias = LoadBias(0x7f00_0000_0000)
        let plan = try patch.plan(bias: bias, base: RuntimeAddress(0x7f00_1000_0000))
        let site = try #require(plan.sites.first)
        let entry = try #require(patch.contents.replacements.first { $0.isHooked }?.old)
        #expect(site.address == bias.runtime(entry) + (isHardened ? 4 : 0))
        // What is written is the jump alone, and new code is entered by an ENDBR64 of its own.
        #expect(site.new.first == 0xe9 && site.new.count == 5)
        let endbr64: [UInt8] = [0xf3, 0x0f, 0x1e, 0xfa]
        #expect(site.old.starts(with: endbr64) == false)
        #expect(patch.contents[.text].starts(with: endbr64) == isHardened)
    }
}
