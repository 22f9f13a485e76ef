// Memory: what one flow keeps, what all keep together, and that nothing is let go of without a word.

import Testing
import VirtualPatch

@Suite struct MemoryLimitTests {
    private static let rules = """
        drop http any any -> any any (flow:to_server; http.request_body; content:"exploit"; pcre:"/exploit.*[0-9]{3}/s"; sid:1;)
        drop tcp any any -> any any (flow:to_server; content:"first"; content:"second"; distance:0; sid:2;)
        """

    @Test func aFlowOverItsLimitIsGivenUpOnAndThatIsSaid() throws {
        let e = try engine(Self.rules) {
            $0.flowMemoryLimitBytes = 100_000
            $0.wholeBodyBytes = 1 << 20
        }
        let wire = Wire()
        wire.handshake()
        wire.client("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n")
        for _ in 0..<40 { wire.client(Array(repeating: UInt8(ascii: "."), count: 10_000)) }
        #expect(reasons(wire.run(e)).contains(.memoryLimit))
        #expect(e.keptBytes == 0)
    }

    @Test func allFlowsTogetherStayUnderTheLimit() throws {
        let e = try engine(Self.rules) {
            $0.memoryLimitBytes = 1 << 20
            $0.wholeBodyBytes = 1 << 20
        }
        var most = 0
        var said = 0
        var clock: UInt64 = 0
        for n in 0..<50 {
            let wire = Wire(clientPort: UInt16(20_000 + n))
            wire.handshake()
            wire.client("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n")
            for _ in 0..<10 { wire.client(Array(repeating: UInt8(ascii: "."), count: 10_000)) }
            for packet in wire.packets {
                clock += 1
                let outcome = e.inspect(packet: packet.span, at: Instant(nanoseconds: clock))
                said += reasons(outcome).count
                most = max(most, e.keptBytes)
            }
        }
        #expect(e.flowCount == 50)
        #expect(most <= 1 << 20)
        #expect(said > 0, "flows that found no room are told")
        _ = e.finish()
        #expect(e.keptBytes == 0)
    }

    @Test func moreFlowsThanTheLimitAreTold() throws {
        let e = try engine(Self.rules) { $0.flowLimit = 2 }
        var told: [Uninspectable.Reason] = []
        for n in 0..<3 {
            let wire = Wire(clientPort: UInt16(20_000 + n))
            wire.handshake()
            for packet in wire.packets { told += reasons(e.inspect(packet: packet.span, at: Instant(nanoseconds: 1))) }
        }
        #expect(e.flowCount == 2)
        #expect(told.contains(.memoryLimit))
    }

    @Test func twentyThousandRequestsOfOneConnectionKeepNothing() throws {
        let e = try engine(Self.rules)
        let wire = Wire()
        wire.handshake()
        let one = "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nfirst"
        for _ in 0..<200 { wire.client(String(repeating: one, count: 100)) }
        var kept: [Int] = []
        for (i, packet) in wire.packets.enumerated() {
            _ = e.inspect(packet: packet.span, at: Instant(nanoseconds: UInt64(i)))
            kept.append(e.keptBytes)
        }
        #expect(e.flowCount == 1)
        #expect((kept.last ?? .max) <= (kept.dropFirst(3).first ?? 0) * 2 + 4_096, "\(kept.suffix(3))")
        _ = e.finish()
        #expect(e.counters.requests == 20_000)
    }

    @Test func manySegmentsThatWaitAreBounded() throws {
        let e = try engine(Self.rules) { $0.outOfOrderLimitBytes = 50_000 }
        let wire = Wire()
        wire.handshake()
        wire.segments((1..<100).map { ($0 * 2_000, Array(repeating: UInt8(ascii: "a"), count: 1_000)) })
        var most = 0
        var told: [Uninspectable.Reason] = []
        for packet in wire.packets {
            told += reasons(e.inspect(packet: packet.span, at: Instant(nanoseconds: 1)))
            most = max(most, e.keptBytes)
        }
        #expect(told.contains(.streamGap))
        #expect(most <= 200_000)
    }
}

@Suite struct EncryptedTests {
    private func counters(_ first: [UInt8], port: UInt16) throws -> Engine.Counters {
        let e = try engine("drop tcp any any -> any any (content:\"never\"; sid:1;)")
        let wire = Wire(serverPort: port)
        wire.handshake()
        wire.client(first)
        _ = wire.run(e)
        return e.counters
    }

    @Test func tlsAndSSHAreRecognisedOnAnyPort() throws {
        let hello: [UInt8] = [0x16, 3, 1, 0, 5, 1, 0, 0, 1, 0]
        #expect(try counters(hello, port: 4443).encrypted.tls == 1)
        #expect(try counters(Array("SSH-2.0-OpenSSH_9.2\r\n".utf8), port: 2222).encrypted.ssh == 1)
        #expect(try counters(Array("GET / HTTP/1.1\r\nHost: a\r\n\r\n".utf8), port: 8080).encrypted.total == 0)
    }

    @Test func quicIsRecognised() throws {
        let e = try engine("drop udp any any -> any any (content:\"never\"; sid:1;)")
        let initial: [UInt8] = [0xc3, 0, 0, 0, 1, 8] + Array(repeating: 7, count: 1_194)
        _ = e.inspect(packet: Wire.datagram(initial, serverPort: 443).span, at: Instant(nanoseconds: 1))
        #expect(e.counters.encrypted.quic == 1)
        _ = e.inspect(packet: Wire.datagram(Array(initial.dropLast(800)), serverPort: 4433).span, at: Instant(nanoseconds: 2))
        #expect(e.counters.encrypted.quic == 1, "the first packet of QUIC is padded")
    }

    @Test func whatFollowsAStartOfEncryptionInMailIsCounted() throws {
        let e = try engine("drop smtp any any -> any any (content:\"never\"; sid:1;)")
        let wire = Wire(serverPort: 25)
        wire.handshake()
        wire.client("EHLO a\r\nSTARTTLS\r\n")
        wire.client([22, 3, 1, 0, 4, 1, 0, 0, 0])
        _ = wire.run(e)
        #expect(e.counters.encrypted.tls == 1)
    }
}

@Suite struct MailTests {
    private static let rule = "drop smtp any any -> any any (flow:to_server; file.data; content:\"EVIL PAYLOAD\"; sid:1;)"

    private func run(_ body: String, cut: Int = 1_000) throws -> Engine.Outcome {
        let wire = Wire(serverPort: 25)
        wire.handshake()
        let bytes = Array(("EHLO a\r\nMAIL FROM:<a>\r\nRCPT TO:<b>\r\n" + body).utf8)
        for start in stride(from: 0, to: bytes.count, by: cut) { wire.client(Array(bytes[start..<min(bytes.count, start + cut)])) }
        return wire.run(try engine(Self.rule))
    }

    @Test(
        "what a part of a mail holds is found, however it was sent",
        arguments: [
            "DATA\r\nSubject: x\r\n\r\nan EVIL PAYLOAD\r\n.\r\n",
            "STARTTLS\r\nDATA\r\nSubject: x\r\n\r\nan EVIL PAYLOAD\r\n.\r\n",
            "DATA\r\nContent-Transfer-Encoding: base64\r\n\r\nYW4gRVZJTCBQ\r\nQVlMT0FE\r\n.\r\n",
            "DATA\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\nan EV=49L =\r\nPAYLOAD\r\n.\r\n",
            "DATA\r\nContent-Type: multipart/mixed;\r\n boundary=\"b\"\r\n\r\n--b\r\n\r\ntext\r\n--b\r\nContent-Transfer-Encoding: BASE64\r\n\r\nRVZJTCBQQVlMT0FE\r\n--b--\r\n.\r\n",
            "BDAT 14\r\n\r\nan EVIL PAYLBDAT 5 LAST\r\nOAD\r\n",
        ])
    func parts(_ body: String) throws {
        #expect(ids(try run(body)) == ["1"])
        #expect(ids(try run(body, cut: 1)) == ["1"])
    }

    @Test func whatIsNotInAPartIsNotFound() throws {
        #expect(ids(try run("DATA\r\nSubject: EVIL PAYLOAD\r\n\r\nnothing\r\n.\r\nEVIL PAYLOAD\r\n")).isEmpty)
    }
}
