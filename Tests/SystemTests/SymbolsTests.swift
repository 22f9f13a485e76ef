// Debuggers and profilers see through patched code when they are told what is there.

import ELF
import Foundation
import LivePatch
import LivePatchApplier
import MachineCode
import ProcessControl
import Testing

extension SystemTests {
    @Suite struct SymbolsTests {
        static let hasDebugger = (try? ChildProcess.run(["gdb", "--version"]).status) == .exited(0)

        private func symbols(_ walker: Walker) throws -> (symbols: ProcessSymbols, path: String) {
            let symbols = try ProcessSymbols(walker.view) { $0 == walker.patch.id ? walker.patch : nil }
            let path = walker.fixture.folder + "/symbols-\(walker.id).elf"
            try Data(symbols.file.bytes).write(to: URL(fileURLWithPath: path))
            return (symbols, path)
        }

        private func gdb(_ id: ProcessID, _ commands: [String]) throws -> String {
            // No init files, no downloads of debug information, no threads library.
            let settings = ["set confirm off", "set pagination off", "set debuginfod enabled off", "set auto-load off"]
            let words = (settings + commands).flatMap { ["-ex", $0] }
            let out = try ChildProcess.run(["gdb", "-nx", "-batch", "-p", "\(id)"] + words)
            return out.outputText + out.errorText
        }

        /// Function names of a backtrace, innermost first.
        private func frames(_ text: String) -> [String] {
            text.split(separator: "\n").compactMap { line in
                guard line.hasPrefix("#") else { return nil }
                let words = line.split(separator: " ")
                guard let i = words.firstIndex(where: { $0.hasPrefix("(") }), i > 0 else { return nil }
                return String(words[i - 1])
            }
        }

        @Test("gdb names every frame from a callback through patched code to main", .enabled(if: hasDebugger, "gdb is not installed"))
        func backtrace() throws {
            let walker = try Walker(.c())
            #expect(Applier(Tracer()).apply(walker.patch, to: walker.id).word == "patched")
            #expect(try walker.ask("version") == "2")
            #expect(try walker.ask("stay") == "inside")
            let (symbols, path) = try symbols(walker)
            #expect(symbols.untold.isEmpty && symbols.patches == [walker.patch.id])
            let text = try gdb(walker.id, ["add-symbol-file \(path)", "bt"])
            let found = frames(text)
            let wanted = try #require(found.firstIndex(of: "stay"), "\(text)")
            #expect(found[wanted...].prefix(5) == ["stay", "frames_call", "answer", "serve", "main"], "\(text)")
            // Without the file it does not find the way: the patched function has no name, and main is not reached through it.
            let without = frames(try gdb(walker.id, ["bt"]))
            #expect(!without.contains("frames_call"), "\(without)")
            #expect(try walker.ask("go on") == "2")
        }

        @Test(
            "gdb knows where a commit stub was called from",
            .enabled(if: hasDebugger, "gdb is not installed"))
        func stub() throws {
            let walker = try Walker(.c())
            #expect(Applier(Tracer()).apply(walker.patch, to: walker.id).word == "patched")
            let (symbols, path) = try symbols(walker)
            let stub = try #require(symbols.file.names.first { $0.name == "frames_call.commit" })
            // The debugger only pretends: it is told another instruction pointer, and forgets it again. The thread is in a read
            // that has not moved the stack pointer, like a function that was just called.
            for at in [0, 7, CommitStub.movedOffset] {
                let text = try gdb(
                    walker.id,
                    [
                        "add-symbol-file \(path)", "bt 2", "set $old = $rip", "set $rip = \(hex(stub.address.value)) + \(at)", "bt 2",
                        "set $rip = $old",
                    ])
                let lines = text.split(separator: "\n").filter { $0.hasPrefix("#") }
                try #require(lines.count == 4, "\(text)")
                #expect(lines[2].contains(/frames_call.commit/), "\(text)")
                #expect(lines[1] == lines[3], "\(text)")
            }
            #expect(try walker.ask("version") == "2")
        }

        @Test("names cover the functions of the patch and the way into them, at addresses inside its code")
        func names() throws {
            let walker = try Walker(.c())
            #expect(Applier(Tracer()).apply(walker.patch, to: walker.id).word == "patched")
            let (symbols, path) = try symbols(walker)
            let names = symbols.file.names
            #expect(
                Set(names.map(\.name)).isSuperset(of: ["frames_call", "frames_call.commit", "frames_version", "frames_version.commit"]),
                "\(names)")
            let plan = try #require(try walker.view.patches.first?.plan)
            #expect(names.allSatisfy { plan.newCode.contains($0.address) && $0.address + $0.size <= plan.newCode.upperBound })
            // binutils read the same.
            let nm = try ChildProcess.runChecked(["nm", path]).outputText
            let call = try #require(names.first { $0.name == "frames_call" })
            #expect(nm.contains("\(String(call.address.value, radix: 16)) T frames_call\n"), "\(nm)")
            let frames = try ChildProcess.runChecked(["readelf", "--debug-dump=frames", path]).outputText
            #expect(frames.contains("pc=0000\(String(call.address.value, radix: 16)).."), "\(frames)")
            #expect(
                symbols.file.perfMap.contains(
                    "\(String(call.address.value, radix: 16)) \(String(call.size, radix: 16)) frames_call [fother]\n"))
        }
    }
}
