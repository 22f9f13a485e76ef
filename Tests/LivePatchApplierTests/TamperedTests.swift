// What somebody wrote into a patched process afterwards: never called patched, never used as what revert restores.

import ELF
import Foundation
import LivePatch
import LivePatchApplier
import ProcessControl
import Testing

@Suite(.serialized, .enabled(if: geteuid() == 0, "patching other processes needs root"))
struct TamperedTests {
    let toy: Toy
    let applier = Applier(Tracer())

    init() throws { toy = try Toy() }

    /// What the patch gives where the victim has it.
    private func plan(of victim: Victim) throws -> ApplyPlan {
        let patches = try ProcessView(victim.id, held: { $0 == self.toy.patch.id ? self.toy.patch : nil }).patches
        return try #require(patches.first?.plan)
    }

    struct Tampering: CustomTestStringConvertible, Sendable {
        var testDescription: String
        var code: String
        /// One byte that is wrong then; nil when the patch has no such place.
        var place: @Sendable (ApplyPlan) -> RuntimeAddress?
    }

    static let all = [
        Tampering(testDescription: "the old bytes in the header", code: "header-contradicts") { $0.base + 256 + 16 },
        Tampering(testDescription: "a site's address in the header", code: "header-contradicts") { $0.base + 256 },
        Tampering(testDescription: "the hash of the code in the header", code: "header-contradicts") { $0.base + 72 },
        Tampering(testDescription: "the number of sites in the header", code: "header-contradicts") { $0.base + 16 },
        Tampering(testDescription: "the patch's id in the header", code: "patch-not-held") { $0.base + 40 },
        Tampering(testDescription: "the version of the header", code: "header-malformed") { $0.base + 8 },
        Tampering(testDescription: "the new code", code: "code-contradicts") { $0.newCode.lowerBound },
        Tampering(testDescription: "the last byte of the new code's pages", code: "code-contradicts") { $0.newCode.upperBound + -1 },
        Tampering(testDescription: "the new constants", code: "code-contradicts") { $0.base + $0.layout.readOnly.lowerBound },
        Tampering(testDescription: "the jump at a site", code: "site-altered") { $0.sites.last.map { $0.address + 1 } },
    ]

    @Test("a changed byte makes it could not tell, whatever is asked; put back, it is patched and can be reverted", arguments: all)
    func changedByte(_ tampering: Tampering) throws {
        let victim = try toy.start()
        #expect(applier.apply(toy.patch, to: victim.id).word == "patched")
        let place = try #require(tampering.place(try plan(of: victim)))
        let memory = try ProcessHandle(victim.id).memory()
        let before = try memory.read(at: place, count: 1)
        try memory.write([before[0] ^ 1], at: place)

        #expect(try toy.state(of: victim.id) == tampering.code)
        let reverted = applier.revert(toy.patch, in: victim.id).word
        #expect(reverted == "could not tell: \(tampering.code)" || reverted == "not patched", "\(reverted)")
        // Nothing else was touched by asking.
        #expect(try memory.read(at: place, count: 1) == [before[0] ^ 1])

        try memory.write(before, at: place)
        #expect(try toy.state(of: victim.id) == "patched")
        #expect(try victim.ask("call 1") == "43")
        #expect(applier.revert(toy.patch, in: victim.id).word == "reverted")
        #expect(try victim.ask("call 1") == "42")
    }

    @Test("a commit byte that somebody cleared is seen, and the sites are cleaned up")
    func clearedCommit() throws {
        let victim = try toy.start()
        #expect(applier.apply(toy.patch, to: victim.id).word == "patched")
        try ProcessHandle(victim.id).memory().write([0], at: try plan(of: victim).commit)
        #expect(try victim.ask("call 1") == "42")
        #expect(try toy.state(of: victim.id) == "interrupted")
        #expect(applier.apply(toy.patch, to: victim.id).word == "patched")
        #expect(try victim.ask("call 1") == "43")
    }
}
