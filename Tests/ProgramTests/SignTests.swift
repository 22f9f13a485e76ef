// Whose patches a host applies: its own, and those that somebody it trusts signed. Nobody else's.

import ELF
import Foundation
import ProcessControl
import Testing

@Suite(.serialized) struct SignTests {
    let shop: Shop
    init() throws {
        shop = try Shop()
        let built = try shop.fother("build", shop.path("libold.so"), shop.path("libnew.so"), "-o", shop.path("fix.fother"), "--no-sources")
        #expect(FileManager.default.fileExists(atPath: shop.path("fix.fother")), "\(built.outputText)\(built.errorText)")
        _ = try shop.fother("sign", "--new-key", shop.path("key"), "--name", "the distribution")
    }

    /// A host that has never seen the patch; `keys` are in its folder. What it says about applying the file.
    private func apply(_ file: String, keys: [String], keysMode: Int = 0o755, _ more: [String] = []) throws -> ChildOutput {
        let host = shop.path("host-\(UUID().uuidString)")
        try FileManager.default.createDirectory(
            atPath: host + "/keys", withIntermediateDirectories: true, attributes: [.posixPermissions: 0o755])
        for (i, key) in keys.enumerated() { try FileManager.default.copyItem(atPath: key, toPath: "\(host)/keys/\(i).pub") }
        try FileManager.default.setAttributes([.posixPermissions: keysMode], ofItemAtPath: host + "/keys")
        let environment = ProcessInfo.processInfo.environment.merging([
            "FOTHER_STATE": host + "/state", "FOTHER_CACHE": host + "/cache", "FOTHER_KEYS": host + "/keys",
        ]) { $1 }
        // What its verdict leaves to a person is not the question here.
        let accept = try shop.findings(file).flatMap { ["--accept", $0] }
        return try ChildProcess.run(
            [Shop.program, "apply", file, "--dry-run"] + more + accept + (accept.isEmpty ? [] : ["--because", "a test"]),
            environment: environment.map { "\($0.key)=\($0.value)" })
    }

    @Test func ownPatchNeedsNoSignature() throws {
        let accept = try shop.findings(shop.path("fix.fother")).flatMap { ["--accept", $0] }
        let result = try shop.fother(
            ["apply", shop.path("fix.fother"), "--dry-run"] + accept + (accept.isEmpty ? [] : ["--because", "a test"]))
        #expect(result.status == .exited(0), "\(result.errorText)")
    }

    @Test func strangersAreRefused() throws {
        let file = shop.path("fix.fother"), key = shop.path("key.pub")
        let unsigned = try apply(file, keys: [key])
        #expect(unsigned.status == .exited(1) && unsigned.errorText.contains("[not-trusted]"), "\(unsigned.errorText)")
        #expect(try apply(file, keys: [key], ["--trust-unsigned"]).status == .exited(0))

        #expect(try shop.fother("sign", file, "--key", shop.path("key")).status == .exited(0))
        #expect(try apply(file, keys: [key]).status == .exited(0))
        #expect(try apply(file, keys: []).errorText.contains("[not-trusted]"))

        // Another's key, and another's patch under this signature.
        _ = try shop.fother("sign", "--new-key", shop.path("other"))
        #expect(try apply(file, keys: [shop.path("other.pub")]).errorText.contains("[not-trusted]"))
        _ = try shop.fother("build", shop.path("libnew.so"), shop.path("libold.so"), "-o", shop.path("back.fother"), "--no-sources")
        try FileManager.default.copyItem(atPath: file + ".sig", toPath: shop.path("back.fother.sig"))
        #expect(try apply(shop.path("back.fother"), keys: [key]).errorText.contains("[not-trusted]"))
    }

    @Test("what is held under an id is that patch, or is said to be another")
    func exchanged() throws {
        let id = try #require(try shop.json(shop.fother("inspect", shop.path("fix.fother"), "--json"))["id"] as? String)
        let folder = shop.path("state/patches")
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        _ = try shop.fother("build", shop.path("libnew.so"), shop.path("libold.so"), "-o", "\(folder)/\(id).fother", "--no-sources")
        #expect(FileManager.default.fileExists(atPath: "\(folder)/\(id).fother"))
        #expect(try shop.fother("apply", id, "--dry-run").errorText.contains("[patch-exchanged]"))
    }

    @Test func keysThatOthersCanWriteVouchForNothing() throws {
        let file = shop.path("fix.fother")
        _ = try shop.fother("sign", file, "--key", shop.path("key"))
        let result = try apply(file, keys: [shop.path("key.pub")], keysMode: 0o777)
        #expect(result.status == .exited(1) && result.errorText.contains("[writable-by-others]"), "\(result.errorText)")
    }

    @Test func keysAreNeverOverwrittenAndStaySecret() throws {
        let mode = try FileManager.default.attributesOfItem(atPath: shop.path("key"))[.posixPermissions] as? Int
        #expect(mode == 0o600)
        #expect(try shop.fother("sign", "--new-key", shop.path("key")).errorText.contains("[output-exists]"))
        #expect(try shop.fother("sign", shop.path("fix.fother"), "--key", shop.path("key.pub")).errorText.contains("[key-malformed]"))
    }
}

extension Shop {
    /// What a patch leaves to a person to decide.
    func findings(_ file: String) throws -> [String] {
        let manifest = try json(fother("inspect", file, "--json"))["manifest"] as? [String: Any]
        let findings = manifest?["findings"] as? [[String: Any]] ?? []
        return Set(findings.map { "\($0["code"] ?? ""):\($0["function"] ?? "")" }).sorted()
    }
}
