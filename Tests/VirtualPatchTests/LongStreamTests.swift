// Rules on streams without a named buffer, ten megabytes in: found, or said to be undecidable; never silent.

import ELF
import Testing
import VirtualPatch

/// Parts of a rule on a stream that were farther apart than 64 KiB were missed, and nothing said so.
@Suite struct LongStreamTests {
    private static let far = 10 << 20

    /// The text's parts on one connection, ten megabytes of dots for each `…`, in segments of 1,448 bytes.
    private func outcome(_ conditions: String, _ text: String, port: UInt16 = 9000) throws -> Engine.Outcome {
        let wire = Wire(serverPort: port)
        wire.handshake()
        let dots = Array(repeating: UInt8(ascii: "."), count: Self.far)
        var bytes: [UInt8] = []
        for (i, part) in text.split(separator: "…", omittingEmptySubsequences: false).enumerated() {
            if i > 0 { bytes += dots }
            bytes += Array(part.utf8)
        }
        for at in stride(from: 0, to: bytes.count, by: 1448) { wire.client(Array(bytes[at..<min(bytes.count, at + 1448)])) }
        let e = try engine("drop tcp any any -> any any (msg:\"t\"; flow:to_server; \(conditions) sid:1;)") {
            $0.verifiesChecksums = false
        }
        return wire.run(e)
    }

    @Test(
        "streaming: found, wherever it is",
        arguments: [
            ("content:\"exploit\";", "…exploit…"), ("content:\"exploit\"; content:\"=now\"; distance:0; within:20;", "…exploit is=now…"),
            ("content:\"first\"; content:\"second\"; distance:0;", "first…second"),
            ("content:\"exploit\"; pcre:\"/x=[0-9]{3}/\";", "…exploit x=123…"),
            ("content:\"exploit\"; pcre:\"/x=[0-9]{3}/\";", "exploit…x=123"),
            ("content:\"exploit\"; pcre:\"/^:[0-9]{3}/R\";", "…exploit:123…"),
        ])
    func streaming(_ conditions: String, _ text: String) throws {
        let found = try outcome(conditions, text)
        #expect(ids(found) == ["1"] && reasons(found).isEmpty, "\(found.findings)")
    }

    @Test(
        "end-of-buffer: decided on what has come",
        arguments: [
            ("content:\"have\"; content:!\"excuse\";", "…have…"), ("content:\"tail\"; endswith;", "…tail"),
            ("content:\"have\"; pcre:!\"/excuse[0-9]/\";", "…have…"),
        ])
    func endOfBuffer(_ conditions: String, _ text: String) throws {
        let found = try outcome(conditions, text)
        #expect(ids(found) == ["1"] && reasons(found).isEmpty, "\(found.findings)")
    }

    @Test(
        "whole: found when its parts are together, said when they may not be",
        arguments: [
            ("content:\"exploit\"; pcre:\"/exploit.*[0-9]{3}/s\";", "…exploit abc 123…", "exploit…123"),
            ("content:\"exploit\"; byte_jump:4,0,relative,string,dec; content:\"end\"; within:3;", "…exploit0003abcend…", ""),
            ("content:\"exploit\"; byte_extract:1,0,n,relative; content:\"end\"; within:n;", "…exploit\nend…", ""),
            ("content:\"exploit\"; base64_decode:relative; base64_data; content:\"abc\";", "…exploitYWJj…", ""),
            ("byte_extract:1,0,n; content:\"exploit\"; content:\"here\"; offset:n;", "\u{2}..exploit here", "\u{2}..exploit…"),
        ])
    func whole(_ conditions: String, _ near: String, _ apart: String) throws {
        let found = try outcome(conditions, near)
        #expect(ids(found) == ["1"] && reasons(found).isEmpty, "\(found.findings)")
        guard !apart.isEmpty else { return }
        let unseen = try outcome(conditions, apart)
        #expect(ids(unseen).isEmpty && reasons(unseen) == [.streamTooLong], "\(unseen.findings)")
    }

    @Test("what was gone before the rule's literal came is said, once")
    func before() throws {
        let conditions = "content:\"key\"; content:\"longer literal\"; distance:0;"
        #expect(try reasons(outcome(conditions, "key…longer literal…longer literal")) == [.streamTooLong])
        #expect(try reasons(outcome(conditions, "…nothing of the kind…")).isEmpty)
        let independent = "content:\"key\"; content:\"longer literal\";"
        #expect(try ids(outcome(independent, "…longer literal…key")) == ["1"])
        #expect(try reasons(outcome(independent, "key…longer literal…longer literal")) == [.streamTooLong])
    }

    @Test("an expression that can no more be completed is a no, not a question")
    func decided() throws {
        #expect(try outcome("content:\"exploit\"; pcre:\"/exploit[^.]*[0-9]{3}/\";", "…exploit…").findings.isEmpty)
        #expect(try outcome("content:\"exploit\"; content:\"x\"; distance:0; within:9;", "…exploit…x").findings.isEmpty)
    }

    @Test("a request's long body is said of rules that need the bytes around it too")
    func inRequests() throws {
        let body = String(repeating: "-", count: 300_000)
        let rule = "drop http any any -> any any (flow:to_server; http.uri; content:\"/up\"; pkt_data; content:\"POST /up\"; sid:1;)"
        let e = try engine(rule)
        #expect(ids(e.inspect(request: Array("POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc".utf8))) == ["1"])
        #expect(ids(e.inspect(request: Array("POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: 300000\r\n\r\n\(body)".utf8))) == ["1"])
    }
}
