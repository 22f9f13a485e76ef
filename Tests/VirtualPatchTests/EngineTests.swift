// What the engine promises of any traffic: nothing hides behind length, order, encoding or framing, and what cannot be read is said.

import ELF
import Testing
import VirtualPatch

/// Rules from text, in an engine.
func engine(_ rules: String, _ change: (inout EngineOptions) -> Void = { _ in }) throws -> Engine {
    let set = RuleSet.load([RuleSet.File(name: "test.rules", bytes: Array(rules.utf8))])
    #expect(set.refused.isEmpty, "\(set.refused)")
    var options = EngineOptions()
    options.requestsOnly = true
    change(&options)
    return try Engine(try CompiledRules(set.rules), options)
}

func ids(_ outcome: Engine.Outcome) -> [String] {
    outcome.findings.compactMap { if case .alert(let a) = $0 { a.rule } else { nil } }
}
func reasons(_ outcome: Engine.Outcome) -> [Uninspectable.Reason] {
    outcome.findings.compactMap { if case .uninspectable(let u) = $0 { u.reason } else { nil } }
}

func post(_ body: [UInt8], _ type: String = "application/octet-stream") -> [UInt8] {
    Array("POST /upload HTTP/1.1\r\nHost: a\r\nContent-Type: \(type)\r\nContent-Length: \(body.count)\r\n\r\n".utf8) + body
}

@Suite struct LongBodyTests {
    static let far = 10 << 20

    /// `text` ten megabytes into a body.
    static func body(_ text: String, behind: Int = 1000) -> [UInt8] {
        Array(repeating: UInt8(ascii: "."), count: far) + Array(text.utf8) + Array(repeating: UInt8(ascii: "."), count: behind)
    }
    private func rule(_ conditions: String) -> String {
        "drop http any any -> any any (msg:\"t\"; flow:to_server; http.request_body; \(conditions) sid:1;)"
    }

    @Test func aStreamingRuleMatchesTenMegabytesIntoABody() throws {
        let e = try engine(rule("content:\"exploit\"; content:\"=now\"; distance:0; within:20;"))
        #expect(ids(e.inspect(request: post(Self.body("an exploit is=now")))) == ["1"])
        #expect(ids(e.inspect(request: post(Self.body("an exploit is not=then")))).isEmpty)
    }

    @Test func partsAtAnyDistanceAreFoundWhenTheFirstIsLongGone() throws {
        let e = try engine(rule("content:\"first\"; content:\"second\"; distance:0;"))
        #expect(ids(e.inspect(request: post(Array("first".utf8) + Self.body("second")))) == ["1"])
        #expect(ids(e.inspect(request: post(Array("second".utf8) + Self.body("first")))).isEmpty)
    }

    @Test func anEndOfBufferRuleIsDecidedAtTheEnd() throws {
        let ends = try engine(rule("content:\"tail\"; endswith;"))
        #expect(ids(ends.inspect(request: post(Self.body("tail", behind: 0)))) == ["1"])
        #expect(ids(ends.inspect(request: post(Self.body("tail", behind: 1)))).isEmpty)
        let lacks = try engine(rule("content:\"have\"; content:!\"excuse\";"))
        #expect(ids(lacks.inspect(request: post(Array("have".utf8) + Self.body("nothing")))) == ["1"])
        #expect(ids(lacks.inspect(request: post(Array("have".utf8) + Self.body("excuse")))).isEmpty)
        let size = try engine(rule("content:\"have\"; bsize:>10000000;"))
        #expect(ids(size.inspect(request: post(Self.body("have")))) == ["1"])
    }

    @Test func aRuleThatNeedsTheWholeSaysThatItCouldNotSee() throws {
        let e = try engine(rule("content:\"exploit\"; pcre:\"/exploit.*[0-9]{3}/s\";"))
        let far = e.inspect(request: post(Array("exploit".utf8) + Self.body("123")))
        #expect(reasons(far) == [.bodyTooLong] || reasons(far) == [.matchLimit], "\(far.findings)")
        let harmless = e.inspect(request: post(Self.body("nothing of the kind")))
        #expect(harmless.findings.isEmpty, "a literal that it needs is nowhere: that is a no")
        #expect(ids(e.inspect(request: post(Array("exploit 123".utf8)))) == ["1"])
    }

    @Test func classesAreWhatTheTableSays() throws {
        let cases: [(String, StreamingClass)] = [
            ("content:\"a\"; content:\"b\"; distance:0;", .streaming), ("content:\"ab\"; pcre:\"/^[0-9]{3}/R\";", .streaming),
            ("content:\"ab\"; content:!\"b\";", .endOfBuffer), ("bsize:>5;", .endOfBuffer), ("content:\"ab\"; endswith;", .endOfBuffer),
            ("content:\"ab\"; pcre:\"/a.*b/\";", .whole), ("content:\"ab\"; content:!\"b\"; distance:0; within:5;", .whole),
            ("content:\"ab\"; base64_decode:relative; base64_data; content:\"x\";", .whole),
        ]
        for (text, expected) in cases {
            let set = RuleSet.load([RuleSet.File(name: "c.rules", bytes: Array(rule(text).utf8))])
            #expect(set.rules.first?.streaming == expected, "\(text) \(set.refused)")
        }
    }
}

@Suite struct RequestTests {
    @Test func keepAliveDoesNotGrow() throws {
        let e = try engine("drop http any any -> any any (flow:to_server; http.uri; content:\"/evil\"; sid:1;)")
        let one = Array("GET /ordinary HTTP/1.1\r\nHost: a\r\n\r\n".utf8)
        var all: [UInt8] = []
        for _ in 0..<20_000 { all += one }
        all += Array("GET /evil HTTP/1.1\r\nHost: a\r\n\r\n".utf8)
        let outcome = e.inspect(request: all)
        #expect(ids(outcome) == ["1"])
        #expect(e.counters.requests == 20_001)
    }

    @Test(
        "what cannot be read is uninspectable",
        arguments: [
            ("CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\nbytes of another protocol", Uninspectable.Reason.httpTunnel),
            ("GET /old\r\n", .httpWithoutVersion),
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0", .http2),
            ("GET / HTTP/1.1\r\nHost: a\r\nX: \(String(repeating: "x", count: 70_000))\r\n\r\n", .httpError),
        ])
    func unreadable(_ text: String, _ reason: Uninspectable.Reason) throws {
        let e = try engine("drop http any any -> any any (flow:to_server; http.uri; content:\"/evil\"; sid:1;)")
        let outcome = e.inspect(request: Array(text.utf8))
        #expect(reasons(outcome) == [reason], "\(reason) \(outcome.findings)")
    }

    @Test func whatFollowsAnUpgradeIsUninspectable() throws {
        let e = try engine("drop http any any -> any any (flow:to_server; http.uri; content:\"/evil\"; sid:1;)")
        let flow = Wire()
        flow.handshake()
        flow.client("GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        flow.client("\u{1}\u{2}frames")
        #expect(reasons(flow.run(e)) == [.httpUpgrade])
    }

    @Test(
        "one rule, however the request is written",
        arguments: [
            "GET /evil HTTP/1.1\r\nHost: a\r\n\r\n", "GET /%65vil HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /x/../evil HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET //./evil HTTP/1.1\r\nHost: a\r\n\r\n", "GET http://a/evil HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /%2565vil HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /good HTTP/1.1\r\nHost: a\r\n\r\nGET /evil HTTP/1.1\r\nHost: a\r\n\r\n",
        ])
    func writings(_ text: String) throws {
        let e = try engine("drop http any any -> any any (flow:to_server; http.uri; content:\"/evil\"; sid:1;)")
        #expect(ids(e.inspect(request: Array(text.utf8))) == ["1"])
    }

    @Test func strictTakesTheSpecifiedViewAlone() throws {
        let e = try engine("drop http any any -> any any (flow:to_server; http.uri; content:\"/evil\"; sid:1;)") { $0.isStrict = true }
        #expect(ids(e.inspect(request: Array("GET /%2565vil HTTP/1.1\r\nHost: a\r\n\r\n".utf8))).isEmpty)
        #expect(ids(e.inspect(request: Array("GET /%65vil HTTP/1.1\r\nHost: a\r\n\r\n".utf8))) == ["1"])
    }

    @Test func formsAreDecodedChunksJoinedAndNegationsHoldOnTheSameView() throws {
        let e = try engine(
            """
            drop http any any -> any any (flow:to_server; http.request_body; content:"EVILPAYLOAD"; sid:1;)
            drop http any any -> any any (flow:to_server; http.request_body; content:"needle"; content:!"hay"; sid:2;)
            """)
        #expect(ids(e.inspect(request: post(Array("a=EVIL%50AYLOAD".utf8), "application/x-www-form-urlencoded"))) == ["1"])
        #expect(ids(e.inspect(request: post(Array("a=EVIL%2550AYLOAD".utf8), "application/x-www-form-urlencoded"))) == ["1"])
        var chunked = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        for c in "EVILPAYLOAD" { chunked += "1\r\n\(c)\r\n" }
        #expect(ids(e.inspect(request: Array((chunked + "0\r\n\r\n").utf8))) == ["1"])
        #expect(ids(e.inspect(request: post(Array("needle".utf8)))) == ["2"])
        #expect(ids(e.inspect(request: post(Array("needle in hay".utf8)))).isEmpty)
    }

    /// Rules of the zones, on writings that hid what they carry.
    @Test(
        "a parameter is found however it is carried",
        arguments: [
            ("COOKIES", "GET / HTTP/1.1\r\nHost: a\r\nCookie: a=1\r\nCookie: v=evil\r\n\r\n"),
            ("COOKIES", "GET / HTTP/1.1\r\nHost: a\r\nCookie: a=1; v=evil\r\n\r\n"),
            (
                "BODY_ARGS",
                "POST / HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 14\r\n\r\n\u{feff}{\"v\":\"evil\"}"
            ),
            (
                "FILENAMES",
                "POST / HTTP/1.1\r\nHost: a\r\nContent-Type: multipart/form-data; boundary=b\r\nContent-Length: 102\r\n\r\n"
                    + "--b\r\nContent-Disposition: form-data; name=\"v\"; filename*=UTF-8''e%76il\r\n\r\nabcdefghijklmnopqrs\r\n--b--\r\n"
            ),
        ])
    func carried(_ zone: String, _ request: String) throws {
        let variable = zone == "BODY_ARGS" ? "json.v" : "v"
        let text = """
            name: a/t
            rules:
              - and:
                - zones: [\(zone)]
                  variables: [\(variable)]
                  match: {type: equals, value: evil}
            """
        let set = RuleSet.load([RuleSet.File(name: "t.yaml", bytes: Array(text.utf8))])
        var options = EngineOptions()
        options.requestsOnly = true
        let e = try Engine(try CompiledRules(set.rules), options)
        #expect(ids(e.inspect(request: Array(request.utf8))) == ["t"])
    }

    @Test("a rule that asks for parts that are never there together is refused")
    func apart() {
        for rule in [
            "drop dns any any -> any any (dns.query; content:\"evil\"; pkt_data; content:\"x\"; sid:1;)",
            "drop http any any -> any any (flow:to_server; http.uri; content:\"evil\"; ipv4.hdr; content:\"x\"; sid:1;)",
        ] {
            let set = RuleSet.load([RuleSet.File(name: "t.rules", bytes: Array(rule.utf8))])
            #expect(set.refused.first?.sentence.contains("never looked at together") == true, "\(set.refused)")
        }
    }

    @Test func aFindingNamesRuleCVEBufferAndPlace() throws {
        let e = try engine(
            "drop http any any -> any any (msg:\"m\"; flow:to_server; http.uri; content:\"/evil\"; reference:cve,2021-1234; sid:7;)")
        guard case .alert(let a)? = e.inspect(request: Array("GET /an/evil HTTP/1.1\r\nHost: a\r\n\r\n".utf8)).findings.first else {
            Issue.record("nothing was found")
            return
        }
        #expect(a.sid == 7 && a.cves == ["CVE-2021-1234"] && a.buffer == "http.uri" && a.offset == 3 && a.request == 1 && a.action == .drop)
    }
}

@Suite struct StreamTests {
    private static let rules = """
        drop tcp any any -> any any (msg:"raw"; flow:to_server; content:"EXPLOIT"; sid:1;)
        drop http any any -> any any (msg:"uri"; flow:to_server; http.uri; content:"/evil"; sid:2;)
        """
    private static let request = "GET /evil?EXPLOIT HTTP/1.1\r\nHost: a\r\n\r\n"

    @Test("every way to cut a request gives the same findings", arguments: [1, 2, 3, 7, 1000])
    func cuts(_ size: Int) throws {
        let wire = Wire()
        wire.handshake()
        let bytes = Array(Self.request.utf8)
        for start in stride(from: 0, to: bytes.count, by: size) { wire.client(Array(bytes[start..<min(bytes.count, start + size)])) }
        #expect(Set(ids(wire.run(try engine(Self.rules)))) == ["1", "2"])
    }

    @Test("empty lines before a request hide nothing", arguments: ["\r\n", "\n\n", "\r\n\r\n\r\n"])
    func emptyLines(_ lines: String) throws {
        let wire = Wire()
        wire.handshake()
        for byte in Array((lines + Self.request).utf8) { wire.client([byte]) }
        #expect(Set(ids(wire.run(try engine(Self.rules)))) == ["1", "2"])
    }

    @Test func orderDoesNotMatterAndSequenceNumbersMayWrap() throws {
        let wire = Wire(start: UInt32.max - 10)
        wire.handshake()
        let bytes = Array(Self.request.utf8)
        wire.segments(bytes.enumerated().map { ($0.offset, [$0.element]) }.reversed())
        #expect(Set(ids(wire.run(try engine(Self.rules)))) == ["1", "2"])
    }

    @Test func theDeliveredCopyWins() throws {
        let wire = Wire()
        wire.handshake()
        wire.segments([(0, Array("GET /good".utf8)), (0, Array("GET /evil".utf8)), (9, Array(" HTTP/1.1\r\nHost: a\r\n\r\n".utf8))])
        #expect(ids(wire.run(try engine(Self.rules))).isEmpty)
        let evil = Wire()
        evil.handshake()
        evil.segments([(0, Array("GET /evil".utf8)), (0, Array("GET /good".utf8)), (9, Array(" HTTP/1.1\r\nHost: a\r\n\r\n".utf8))])
        #expect(ids(evil.run(try engine(Self.rules))) == ["2"])
    }

    @Test func fragmentsAreJoinedInAnyOrder() throws {
        for isV6 in [false, true] {
            let wire = Wire(isV6: isV6)
            wire.handshake()
            wire.client(Self.request)
            wire.fragmentLast(into: 16, reversed: true)
            #expect(Set(ids(wire.run(try engine(Self.rules)))) == ["1", "2"])
        }
    }

    @Test func aBadChecksumIsNoPacketAndReplaysAgree() throws {
        let wire = Wire()
        wire.handshake()
        wire.client(Self.request)
        wire.breakLastChecksum()
        #expect(wire.run(try engine(Self.rules)).findings.isEmpty)
        let again = Wire()
        again.handshake()
        again.client(Self.request)
        let first = again.run(try engine(Self.rules))
        for _ in 0..<3 { #expect(again.run(try engine(Self.rules)) == first) }
    }

    @Test func aGapIsSaid() throws {
        let wire = Wire()
        wire.handshake()
        wire.segments([(500_000, Array(repeating: 65, count: 60_000)), (600_000, Array(repeating: 65, count: 60_000))])
        let e = try engine(Self.rules) { $0.outOfOrderLimitBytes = 100_000 }
        #expect(reasons(wire.run(e)) == [.streamGap])
    }
}

/// A rule that looks at a stream as a whole was decided when its literal came, and never again; one without a literal never was.
@Suite struct WholeStreamTests {
    private func isCaught(_ rule: String, _ text: String, pieces: Int) throws -> Bool {
        let wire = Wire()
        wire.handshake()
        let bytes = Array(text.utf8)
        for at in stride(from: 0, to: bytes.count, by: pieces) { wire.client(Array(bytes[at..<min(bytes.count, at + pieces)])) }
        return ids(wire.run(try engine(rule))) == ["1"]
    }

    @Test(arguments: [1, 3, 1000]) func whatComesInLaterSegmentsCounts(_ pieces: Int) throws {
        let rule =
            "drop tcp any any -> any any (msg:\"t\"; flow:to_server; content:\"BEGIN\"; pcre:\"/^.{4}\\xff*BEGIN[0-9]+END/s\"; sid:1;)"
        #expect(try isCaught(rule, "abcdBEGIN" + String(repeating: "7", count: 9000) + "END", pieces: pieces))
        #expect(try !isCaught(rule, "abcdBEGIN" + String(repeating: "7", count: 90) + "xEND", pieces: pieces))
    }

    @Test(arguments: [1, 1000]) func aRuleWithoutALiteralIsLookedAt(_ pieces: Int) throws {
        let rule = "drop tcp any any -> any any (msg:\"t\"; flow:to_server; pcre:\"/^[a-f][^\\n]{3,9}z/\"; sid:1;)"
        #expect(try isCaught(rule, "cats and dogz", pieces: pieces) == false)
        #expect(try isCaught(rule, "catsz", pieces: pieces))
    }
}

/// Commands in capital letters were taken for requests without a version, and their streams for uninspectable.
@Suite struct ProbeTests {
    @Test(arguments: ["PING\r\nSET k v\r\nQUIT\r\n", "USER bob\r\nPASS x\r\nSTAT\r\nRETR 1\r\n", "HELLO there\n"], [1, 4, 1000])
    func commandsAreNoRequests(_ text: String, _ pieces: Int) throws {
        #expect(try reasons(run(text, pieces)) == [])
    }

    @Test(arguments: ["GET /index.html\r\n", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "\r\nMKCOL /a HTTP/1.0\r\n\r\n"], [1, 4, 1000])
    func requestsAre(_ text: String, _ pieces: Int) throws {
        let outcome = try run(text, pieces)
        #expect(reasons(outcome) == [.httpWithoutVersion] || ids(outcome) == ["1"])
    }

    private func run(_ text: String, _ pieces: Int) throws -> Engine.Outcome {
        let wire = Wire()
        wire.handshake()
        let bytes = Array(text.utf8)
        for at in stride(from: 0, to: bytes.count, by: pieces) { wire.client(Array(bytes[at..<min(bytes.count, at + pieces)])) }
        return wire.run(try engine("alert http any any -> any any (msg:\"t\"; flow:to_server; http.uri; content:\"/\"; sid:1;)"))
    }
}
