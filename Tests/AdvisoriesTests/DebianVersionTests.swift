// Version order against the pairs that are easy to get wrong, and against dpkg itself.

import Advisories
import Foundation
import Testing

@Suite struct DebianVersionTests {
    /// Ascending; every pair in it must compare that way round.
    static let ascending = [
        "0.9", "1.0~~", "1.0~~a", "1.0~", "1.0~beta1", "1.0", "1.0-1", "1.0-1+b1", "1.0-1+deb12u1", "1.0-1+deb12u2",
        "1.0-1+deb12u10", "1.0-1.1", "1.0-2", "1.0a", "1.0+dfsg-1", "1.0.1-1", "1.2.0-1", "1.10-1", "2.1.12-stable-8",
        "2.1.12-stable-8+deb12u1", "3.0.17-1~deb12u2", "3.0.17-1~deb12u3", "3.0.17-1", "1:0.1", "2:0.0-0",
    ]

    @Test func ascendingListIsAscending() throws {
        let versions = try Self.ascending.map { try #require(DebianVersion($0), "\($0)") }
        for (i, a) in versions.enumerated() {
            for (j, b) in versions.enumerated() {
                #expect((a < b) == (i < j), "\(a) < \(b)")
                #expect((a == b) == (i == j), "\(a) == \(b)")
            }
        }
    }

    @Test(arguments: [("1.0", "1.0-0"), ("1.0", "0:1.0"), ("1.01", "1.1"), ("1.0-01", "1.0-1")])
    func spellingsThatDpkgCallsEqualAreEqualAndHashAlike(a: String, b: String) throws {
        let x = try #require(DebianVersion(a))
        let y = try #require(DebianVersion(b))
        #expect(x == y)
        #expect(x.hashValue == y.hashValue)
    }

    @Test(arguments: ["", ":1", "a:1", "-1:1", "+1:1", "1-", "1 2", "1\n", "4294967296:1", "1_2", "1-2:3"])
    func whatIsNotAVersionIsNil(text: String) {
        #expect(DebianVersion(text) == nil)
    }

    @Test func aVersionOfTheGreatestLengthIsReadAndALongerOneIsNot() {
        let longest = String(repeating: "1", count: DebianVersion.bytesMax)
        #expect(DebianVersion(longest) != nil)
        #expect(DebianVersion(longest + "1") == nil)
    }

    /// dpkg is the authority: random versions from the characters that matter, compared by both.
    @Test(.enabled(if: FileManager.default.isExecutableFile(atPath: "/usr/bin/dpkg")))
    func agreesWithDpkgOnRandomVersions() throws {
        let seed = UInt64.random(in: .min ... .max)
        var random = SplitMix(seed: seed)
        let alphabet = Array("0019a~+.b")
        func version() -> String {
            func part() -> String {
                String((0..<Int.random(in: 1...4, using: &random)).map { _ in alphabet.randomElement(using: &random)! })
            }
            return "1" + part() + (Bool.random(using: &random) ? "-" + part() : "")
        }
        var script = ""
        var mine: [String] = []
        for _ in 0..<300 {
            let (a, b) = (version(), version())
            let (x, y) = (try #require(DebianVersion(a)), try #require(DebianVersion(b)))
            mine.append("\(a) \(b) " + (x < y ? "lt" : x == y ? "eq" : "gt"))
            script += "for r in lt eq gt; do dpkg --compare-versions '\(a)' $r '\(b)' && echo '\(a)' '\(b)' $r; done\n"
        }
        let shell = Process()
        let output = Pipe()
        shell.executableURL = URL(fileURLWithPath: "/bin/sh")
        shell.arguments = ["-c", script]
        shell.standardOutput = output
        try shell.run()
        let text = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        shell.waitUntilExit()
        #expect(text.split(separator: "\n").map(String.init) == mine, "seed \(seed)")
    }
}

/// A small generator with a printable seed, so that a failing run can be repeated.
struct SplitMix: RandomNumberGenerator {
    var state: UInt64
    init(seed: UInt64) { state = seed }
    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var z = state
        z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
        z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
        return z ^ (z >> 31)
    }
}
