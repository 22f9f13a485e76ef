// `fother symbols` writes where others may have prepared something, and says what to tell gdb.

import ELF
import Foundation
import ProcessControl
import Testing

@Suite(.serialized, .enabled(if: geteuid() == 0, "needs root")) struct SymbolsCommandTests {
    private let shop: Shop
    private let child: ChildProcess
    private var pid: String { "\(child.id)" }
    private var map: String { "/tmp/perf-\(child.id).map" }

    init() throws {
        shop = try Shop()
        child = try ChildProcess([shop.path("main")], input: .pipe, output: .pipe)
        try child.write("x")
        #expect(try child.readLine() == "3")
    }

    private func patched() throws {
        let built = try shop.fother("build", shop.path("libold.so"), shop.path("libnew.so"), "-o", shop.path("fix.fother"))
        #expect(built.status == .exited(0), "\(built.errorText)")
        let applied = try shop.fother("apply", shop.path("fix.fother"), "--pid", pid)
        #expect(applied.status == .exited(0), "\(applied.outputText)\(applied.errorText)")
    }

    @Test("a process without a patch has nothing to write, exit 2")
    func unpatched() throws {
        let answer = try shop.fother("symbols", pid, "-o", shop.path("symbols.elf"))
        #expect(answer.status == .exited(2))
        #expect(!FileManager.default.fileExists(atPath: shop.path("symbols.elf")))
    }

    @Test("the file and the map name the function; the printed line is what gdb needs")
    func written() throws {
        try patched()
        defer { try? FileManager.default.removeItem(atPath: map) }
        let answer = try shop.fother("symbols", pid, "--perf", "-o", shop.path("symbols.elf"))
        #expect(answer.status == .exited(0), "\(answer.outputText)\(answer.errorText)")
        #expect(answer.outputText.contains("add-symbol-file \(shop.path("symbols.elf"))"))
        let symbols = try ChildProcess.runChecked(["nm", shop.path("symbols.elf")]).outputText
        #expect(symbols.contains(" T shop_price\n") && symbols.contains(" T shop_price.commit\n"), "\(symbols)")
        let text = try String(contentsOfFile: map, encoding: .utf8)
        #expect(text.contains(/[0-9a-f]+ [0-9a-f]+ shop_price \[fother\]\n/), "\(text)")
        let attributes = try FileManager.default.attributesOfItem(atPath: map)
        #expect(attributes[.posixPermissions] as? Int == 0o644 && attributes[.ownerAccountID] as? Int == 0)
        // Our own map is written again.
        #expect(try shop.fother("symbols", pid, "--perf", "-o", shop.path("symbols.elf")).status == .exited(0))
    }

    @Test("a link where the map belongs is replaced, not followed; a runtime's own map is left alone")
    func prepared() throws {
        try patched()
        defer { try? FileManager.default.removeItem(atPath: map) }
        let precious = shop.path("precious")
        try "precious\n".write(toFile: precious, atomically: true, encoding: .utf8)
        try FileManager.default.createSymbolicLink(atPath: map, withDestinationPath: precious)
        // The link leads to a file that is not a map of ours.
        _ = try shop.fother("symbols", pid, "--perf", "-o", shop.path("symbols.elf"))
        #expect(try String(contentsOfFile: precious, encoding: .utf8) == "precious\n")

        try? FileManager.default.removeItem(atPath: map)
        try FileManager.default.createSymbolicLink(atPath: map, withDestinationPath: shop.path("nowhere"))
        #expect(try shop.fother("symbols", pid, "--perf", "-o", shop.path("symbols.elf")).status == .exited(0))
        #expect(!FileManager.default.fileExists(atPath: shop.path("nowhere")))
        #expect(try FileManager.default.attributesOfItem(atPath: map)[.type] as? FileAttributeType == .typeRegular)

        try "7f00 10 jitted\n".write(toFile: map, atomically: true, encoding: .utf8)
        let declined = try shop.fother("symbols", pid, "--perf", "-o", shop.path("symbols.elf"))
        #expect(declined.status == .exited(1) && declined.errorText.contains("[perf-map-in-use]"), "\(declined.errorText)")
        #expect(try String(contentsOfFile: map, encoding: .utf8) == "7f00 10 jitted\n")
    }
}
