// What the fuzzers ever found, again; and a short walk over damaged copies of real inputs. A trap here ends the test run.

import ELF
import Foundation
import FuzzTargets
import LivePatch
import LivePatchBuilder
import ProcessControl
import Testing

@Suite struct ReplayTests {
    private static let checkout = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent()

    @Test("every finding of the fuzzers is survived", arguments: FuzzTargets.all.map(\.name))
    func findings(name: String) throws {
        let run = try #require(FuzzTargets.all.first { $0.name == name }?.run)
        let folder = Self.checkout.appendingPathComponent("Fuzz/findings/\(name)").path
        for file in (try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? [] {
            run(try RegularFile.read(folder + "/" + file))
        }
    }

    /// xorshift: small, and the same everywhere.
    private struct Dice: RandomNumberGenerator {
        var state: UInt64
        mutating func next() -> UInt64 {
            state ^= state << 13
            state ^= state >> 7
            state ^= state << 17
            return state
        }
    }

    @Test("damaged copies of a real library, a real patch and a real header are refused or read, and nothing traps")
    func damage() throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("fother-damage-\(ProcessID.own)").path
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: folder) }
        var builds: [[UInt8]] = []
        for body in ["return x + 1;", "return x + 2;"] {
            let source = folder + "/a.c", library = folder + "/a.so"
            try "int helper(int x);\nstatic int n;\nint f(int x) { n++; \(body) }\nint g(int x) { return f(x) * n; }\n".write(
                toFile: source, atomically: true, encoding: .utf8)
            _ = try ChildProcess.runChecked(["gcc", "-O2", "-fPIC", "-shared", "-Wl,--build-id", "-o", library, source])
            builds.append(try RegularFile.read(library))
        }
        var inputs: [String: [UInt8]] = ["elf": builds[0]]
        if case .patch(let file) = try build(old: builds[0], new: builds[1], BuildContext(object: "a.so")).outcome {
            inputs["patch"] = file
            let plan = try LivePatch(parsing: file, name: "a").plan(
                bias: LoadBias(0x7f00_0000_0000), base: RuntimeAddress(0x7eff_f000_0000))
            inputs["header"] = try plan.header.encode()
        }
        try
            "struct s { int a : 3; enum e { x, y } k; };\n#define M(x) do { x; } while (0)\n#if A\nint f(int a) {\n#else\nint f(long a) {\n#endif\n M(a++); static int n; return a; }\nint t[] = { 1, 2 };\n"
            .write(toFile: folder + "/s.c", atomically: true, encoding: .utf8)
        inputs["source"] = try RegularFile.read(folder + "/s.c")
        _ = try ChildProcess.runChecked(["gcc", "-g", "-O1", "-fPIC", "-shared", "-o", folder + "/g.so", folder + "/a.c"])
        inputs["dwarf"] = try RegularFile.read(folder + "/g.so")
        try "void g(int); struct A { ~A(); };\nint f(int x) { A a; try { g(x); } catch (int i) { return i; } catch (...) { } return 0; }\n"
            .write(
                toFile: folder + "/e.cc", atomically: true, encoding: .utf8)
        _ = try ChildProcess.runChecked(["g++", "-O1", "-fPIC", "-shared", "-o", folder + "/e.so", folder + "/e.cc"])
        inputs["exceptions"] = try RegularFile.read(folder + "/e.so")
        inputs["rules"] = Array("\0drop http any any -> any any (http.uri; content:\"/a\"; pcre:\"/a[0-9]+/R\"; sid:1;)\n".utf8)
        inputs["http"] = Array("0\u{7f}POST /a?b=c HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.1\r\n\r\n".utf8)
        inputs["packets"] =
            [1, 0, 40, 0x45, 0, 0, 40, 0, 1, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 0x9c, 0x40, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0]
            + [0x50, 2, 0xff, 0xff, 0, 0, 0, 0]
        #expect(inputs.count == FuzzTargets.all.count)

        let seed = UInt64(Date().timeIntervalSince1970 * 1000) | 1
        print("damage: seed \(seed)")
        var dice = Dice(state: seed)
        for (name, run) in FuzzTargets.all {
            let input = try #require(inputs[name])
            for _ in 0..<300 {
                var bytes = input
                for _ in 0..<Int.random(in: 1...8, using: &dice) {
                    let at = Int.random(in: 0..<bytes.count, using: &dice)
                    switch Int.random(in: 0..<4, using: &dice) {
                    case 0: bytes[at] = UInt8.random(in: 0...255, using: &dice)
                    case 1: bytes[at] = [0, 0xff, 0x7f, 0x80].randomElement(using: &dice) ?? 0
                    case 2: for k in at..<min(bytes.count, at + 8) { bytes[k] = 0xff }
                    default: if bytes.count > 64 { bytes.removeLast(Int.random(in: 1...min(64, bytes.count - 1), using: &dice)) }
                    }
                    if bytes.isEmpty { bytes = [0] }
                }
                run(bytes)
            }
        }
    }
}
