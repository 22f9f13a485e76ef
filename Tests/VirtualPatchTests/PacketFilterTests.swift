// What the filter promises of packets on their way: a server reads what was inspected, whatever order, copies and flags a sender chooses.

import ELF
import Testing

@testable import VirtualPatch

/// A client and a server with the filter between them: the server here is one that takes the last copy of anything that it has not read.
final class Line {
    let filter: PacketFilter
    private var time: UInt64 = 1_000_000_000
    let wire: Wire
    /// By offset in the client's stream: what reached the server.
    private(set) var arrived: [Int: UInt8] = [:]
    private(set) var events: [FilterEvent] = []
    private(set) var injected: [[UInt8]] = []
    private(set) var marks: [FlowMark] = []
    private(set) var resets = 0
    private(set) var drops = 0
    private(set) var last: [UInt8] = []
    /// The server acknowledges what it has in order after each packet.
    var acknowledges = true
    /// Takes a byte's latest copy instead of its first.
    var prefersLatest = true

    init(_ rules: String, clientPort: UInt16 = 40_000, isV6: Bool = false, _ change: (inout FilterOptions) -> Void = { _ in }) throws {
        filter = try PacketFilter(Self.compiled(rules), Self.options(change))
        wire = Wire(isV6: isV6, clientPort: clientPort)
    }

    static func compiled(_ rules: String) throws -> CompiledRules {
        let set = RuleSet.load([RuleSet.File(name: "test.rules", bytes: Array(rules.utf8))])
        #expect(set.refused.isEmpty, "\(set.refused)")
        return try CompiledRules(set.rules)
    }

    static func options(_ change: (inout FilterOptions) -> Void) -> FilterOptions {
        var options = FilterOptions()
        options.ports = [PortPolicy(port: 80, transport: 6), PortPolicy(port: 53, transport: 17)]
        change(&options)
        return options
    }

    /// The longest beginning of the client's stream that the server has.
    var read: [UInt8] {
        var out: [UInt8] = []
        while let byte = arrived[out.count] { out.append(byte) }
        return out
    }
    var text: String { String(decoding: read, as: UTF8.self) }
    var blocked: [String] { events.compactMap { $0.kind == .blocked ? $0.rule : nil } }

    @discardableResult func send(_ packet: [UInt8], inbound: Bool = true, wasSeen: Bool = true) -> Judgement {
        time += 1_000_000
        let j = filter.judge(
            packet.span, wireBytes: packet.count, isInbound: inbound, isChecksumVerified: true, wasSeen: wasSeen,
            at: Instant(nanoseconds: time))
        events += j.events
        injected += j.inject
        if let mark = j.mark { marks.append(mark) }
        guard inbound else { return j }
        let delivered: [UInt8]
        switch j.delivery {
        case .accept: delivered = packet
        case .replace(let bytes): delivered = bytes
        case .drop:
            drops += 1
            return j
        }
        last = delivered
        #expect(Wire.hasGoodChecksums(delivered))
        if Wire.flags(delivered) & 4 != 0 { resets += 1 }
        for (i, byte) in Wire.payload(delivered).enumerated() {
            let at = wire.offset(of: delivered) + i
            guard at >= 0, prefersLatest || arrived[at] == nil else { continue }
            if at >= alreadyRead { arrived[at] = byte }
        }
        if acknowledges {
            alreadyRead = read.count
            filter.acknowledge(wire.acknowledgement(of: read.count), at: time)
        }
        return j
    }
    private var alreadyRead = 0

    func handshake() {
        let before = wire.packets.count
        wire.handshake()
        for (i, p) in wire.packets[before...].enumerated() { send(p, inbound: i != 1) }
    }

    func segments(_ parts: [(offset: Int, bytes: [UInt8])]) {
        let before = wire.packets.count
        wire.segments(parts)
        for p in wire.packets[before...] { send(p) }
    }
    func client(_ text: String) {
        let before = wire.packets.count
        wire.client(text)
        for p in wire.packets[before...] { send(p) }
    }
}

extension PacketFilter {
    func acknowledge(_ packet: [UInt8], at time: UInt64) {
        _ = judge(
            packet.span, wireBytes: packet.count, isInbound: false, isChecksumVerified: true, wasSeen: true, at: Instant(nanoseconds: time))
    }
}

private let evil = "drop http any any -> any any (msg:\"t\"; http.uri; content:\"/evil\"; reference:cve,2099-1; sid:1;)"
private let good = "GET /good HTTP/1.1\r\nHost: a\r\n\r\n"
private let bad = "GET /evil HTTP/1.1\r\nHost: a\r\n\r\n"

@Suite struct PacketFilterTests {
    @Test func aGoodRequestIsLetThroughAsItIs() throws {
        let line = try Line(evil)
        line.handshake()
        line.client(good)
        line.client(good)
        #expect(line.text == good + good)
        #expect(line.events.isEmpty && line.resets == 0 && line.injected.isEmpty)
        #expect(line.marks == [.seen])
        #expect(line.filter.counters.requests == 0 || line.filter.counters.requests == 2)
    }

    @Test(arguments: [false, true]) func aBadRequestEndsTheConnectionForBothEnds(isV6: Bool) throws {
        let line = try Line(evil, isV6: isV6)
        line.handshake()
        line.client(good)
        line.client(bad)
        #expect(line.text == good)
        #expect(line.blocked == ["1"])
        #expect(line.events.first?.cves == ["CVE-2099-1"])
        // The server's end: a reset with the number it expects.
        #expect(line.resets == 1)
        #expect(line.wire.offset(of: line.last) == good.utf8.count)
        // The client's end: a reset with the number it expects, from the server.
        #expect(line.injected.count == 1)
        let reset = try #require(line.injected.first)
        #expect(Wire.hasGoodChecksums(reset) && Wire.flags(reset) & 4 != 0)
        #expect(Wire.sequence(reset) == 5001)
        // What comes after is answered alike, and reaches nobody.
        line.client(good)
        #expect(line.text == good && line.resets == 2 && line.injected.count == 2)
    }

    @Test func silentlyTheClientHearsNothing() throws {
        let line = try Line(evil) { $0.ports[0].onBlock = .silent }
        line.handshake()
        line.client(bad)
        #expect(line.text.isEmpty && line.resets == 1 && line.injected.isEmpty)
    }

    @Test func observingTellsAndChangesNothing() throws {
        let line = try Line(evil) { $0.observes = true }
        line.handshake()
        line.client(bad)
        line.client(good)
        #expect(line.text == bad + good)
        #expect(line.events.map(\.kind) == [.wouldBlock] && line.resets == 0)
        // Not even what would be corrected.
        line.send(line.wire.packet(offset: (bad + good).utf8.count, flags: 24 | 32, urgent: 1, payload: [65]))
        #expect(Wire.flags(line.last) & 32 != 0)
    }

    @Test func aRuleThatOnlyAlertsBlocksToo() throws {
        let line = try Line(evil.replacing("drop http", with: "alert http"))
        line.handshake()
        line.client(bad)
        #expect(line.text.isEmpty && line.blocked == ["1"])
    }

    @Test func oneByteAtATime() throws {
        let line = try Line(evil)
        line.handshake()
        for c in bad { line.client(String(c)) }
        #expect(!line.text.contains("\r\n\r\n") && line.blocked == ["1"])
    }

    /// The first copy of a byte that was let through counts, whichever the server would take.
    @Test(arguments: [false, true]) func aSecondCopyIsMadeEqualToTheFirst(acknowledges: Bool) throws {
        let line = try Line(evil)
        line.acknowledges = acknowledges
        line.handshake()
        line.segments([(0, Array("GET /go".utf8)), (0, Array("GET /ev".utf8))])
        line.segments([(5, Array("eviiii".utf8))])
        line.segments([(7, Array("od HTTP/1.1\r\nHost: a\r\n\r\n".utf8))])
        #expect(!line.text.contains("ev"))
        #expect(line.text.hasPrefix("GET /goiiii") || line.text.hasPrefix("GET /go"))
    }

    @Test func earlyBytesAreJudgedWithWhatTheyComplete() throws {
        let line = try Line(evil)
        line.handshake()
        line.client(good)
        let n = good.utf8.count
        let b = Array(bad.utf8)
        line.segments([(n + 8, Array(b[8...])), (n, Array(b[..<8]))])
        #expect(line.text == good && line.blocked == ["1"])
    }

    @Test func overlapsOfEarlyBytesAreMadeEqualToTheFirst() throws {
        let line = try Line(evil)
        line.handshake()
        line.client(good)
        let n = good.utf8.count
        let b = Array(bad.utf8), g = Array(good.utf8)
        // Early and harmless, then early and bad over it, then what is missing.
        line.segments([(n + 5, Array(g[5...])), (n + 4, Array(b[4...])), (n, Array(g[..<4]))])
        #expect(line.text == good + good)
        #expect(line.filter.counters.corrected > 0)
    }

    @Test func nothingEarlyPassesBeforeTheServerHasCounted() throws {
        let line = try Line(evil)
        line.handshake()
        let b = Array(bad.utf8)
        line.segments([(8, Array(b[8...]))])
        #expect(line.drops == 1)
        line.segments([(0, Array(b[..<8])), (8, Array(b[8...]))])
        #expect(line.blocked == ["1"] && !line.text.contains("\r\n\r\n"))
    }

    @Test func aResetThatTheServerIgnoresHidesNothing() throws {
        let line = try Line(evil)
        line.handshake()
        line.client(good)
        line.send(line.wire.packet(offset: good.utf8.count, flags: 4))
        line.send(line.wire.packet(offset: good.utf8.count + 9, flags: 4))
        line.client(bad)
        #expect(line.text == good && line.blocked == ["1"])
    }

    @Test func anEndThatTheServerIgnoresHidesNothing() throws {
        let line = try Line(evil)
        line.handshake()
        line.client(good)
        line.send(line.wire.packet(offset: good.utf8.count, flags: 17))
        line.client(bad)
        #expect(line.text == good)
    }

    @Test func urgentBytesStayInTheStream() throws {
        let line = try Line(evil)
        line.handshake()
        line.send(line.wire.packet(offset: 0, flags: 24 | 32, urgent: 7, payload: Array("GET /eXvil HTTP/1.1\r\nHost: a\r\n\r\n".utf8)))
        #expect(Wire.flags(line.last) & 32 == 0)
        #expect(line.text.hasPrefix("GET /eXvil"))
        #expect(line.filter.counters.corrected == 1)
    }

    @Test func dataInTheSynAreTakenAway() throws {
        let line = try Line(evil)
        line.send(line.wire.packet(offset: -1, flags: 2, payload: Array(bad.utf8)))
        #expect(Wire.payload(line.last).isEmpty && Wire.flags(line.last) == 2)
        line.send(line.wire.answer(), inbound: false)
        line.send(line.wire.packet(offset: 0, flags: 16))
        line.client(bad)
        #expect(line.text.isEmpty && line.blocked == ["1"])
    }

    @Test func aConnectionFromBeforeIsNeitherEndedNorPassedOver() throws {
        let line = try Line(evil)
        // In the middle of a body, as far as anybody can tell.
        line.wire.client("xxxx\u{1}yyyy")
        for p in line.wire.packets { line.send(p, wasSeen: false) }
        line.send(line.wire.packet(offset: 9, flags: 24, payload: Array(good.utf8)), wasSeen: false)
        #expect(line.resets == 0 && line.filter.counters.earlierFlows == 1)
        line.send(line.wire.packet(offset: 9 + good.utf8.count, flags: 24, payload: Array(bad.utf8)), wasSeen: false)
        #expect(line.blocked == ["1"] && !line.text.contains("evil"))
    }

    @Test func aConnectionThatWasForgottenIsNotTrusted() throws {
        let line = try Line(evil)
        line.wire.client("whatever")
        for p in line.wire.packets { line.send(p, wasSeen: true) }
        #expect(line.resets == 1 && line.text.isEmpty)
        #expect(line.events.map(\.reason) == [.streamGap])
    }

    @Test func whatCannotBeInspectedDoesNotPass() throws {
        for passes in [false, true] {
            let line = try Line(evil) { if passes { $0.ports[0].onUninspectable = .pass } }
            line.handshake()
            line.client("CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n")
            #expect((line.resets == 0) == passes)
            #expect(line.events.map(\.kind) == [passes ? .uninspectablePassed : .uninspectable])
        }
    }

    @Test func newRulesHoldOnAConnectionThatIsOpen() throws {
        let line = try Line("drop http any any -> any any (msg:\"t\"; http.uri; content:\"/other\"; sid:9;)")
        line.handshake()
        line.client(bad)
        #expect(line.text == bad)
        try line.filter.replaceRules(Line.compiled(evil))
        line.client(bad)
        #expect(line.text == bad && line.blocked == ["1"])
    }

    @Test func newRulesHoldFromTheNextRequestOn() throws {
        let line = try Line("drop http any any -> any any (msg:\"t\"; http.request_body; content:\"other\"; sid:9;)")
        line.handshake()
        let head = "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n"
        line.client(head + "12345")
        try line.filter.replaceRules(Line.compiled(evil))
        // The rest of the old request and a bad one in one segment.
        line.client("67890" + bad)
        #expect(line.text == head + "12345" && line.blocked == ["1"])
    }

    @Test func theRulesARequestBeganUnderDecideIt() throws {
        let line = try Line("drop http any any -> any any (msg:\"t\"; http.request_body; content:\"6789\"; sid:9;)")
        line.handshake()
        line.client("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n12345")
        try line.filter.replaceRules(Line.compiled(evil))
        line.client("67890")
        #expect(line.blocked == ["9"])
    }

    @Test func aDatagramIsDroppedAlone() throws {
        let line = try Line("drop udp any any -> any 53 (msg:\"t\"; content:\"evil\"; sid:1;)")
        line.send(Wire.datagram(Array("some evil".utf8), serverPort: 53))
        #expect(line.drops == 1 && line.blocked == ["1"])
        line.send(Wire.datagram(Array("all well".utf8), serverPort: 53))
        #expect(line.drops == 1)
    }

    @Test func rulesOnRepliesAreRefusedByName() {
        let set = RuleSet.load([
            RuleSet.File(
                name: "t.rules",
                bytes: Array(
                    """
                    drop http any any -> any any (msg:"a"; flow:to_client; http.stat_code; content:"500"; sid:1;)
                    drop http any any -> any any (msg:"b"; http.stat_code; content:"500"; sid:2;)
                    drop http any any -> any any (msg:"c"; http.uri; content:"/x"; sid:3;)
                    drop tcp any any -> any any (msg:"d"; content:"either way"; sid:4;)
                    """.utf8))
        ])
        let inline = set.forRequests()
        #expect(inline.rules.map(\.id) == ["3", "4"])
        #expect(inline.refused.map(\.code) == ["rule-reads-replies", "rule-reads-replies"] && inline.total == set.total)
    }

    // MARK: neutralising

    private func neutralising(_ rules: String = evil) throws -> Line {
        let line = try Line(rules) { $0.ports[0].onBlock = .neutralise }
        line.handshake()
        return line
    }
    /// What a server answers: path and body length of each request it reads.
    private func requests(_ text: String) -> [String] {
        var out: [String] = []
        var rest = text[...]
        while let end = rest.firstRange(of: "\r\n\r\n") {
            let head = rest[..<end.lowerBound]
            let line = head.split(separator: " ").dropFirst().first ?? ""
            let length = head.firstRange(of: "Content-Length: ").flatMap { Int(head[$0.upperBound...].prefix { $0.isNumber }) } ?? 0
            out.append("\(line.prefix(5))+\(length)")
            rest = rest[end.upperBound...].dropFirst(length)
        }
        return rest.isEmpty ? out : out + ["rest"]
    }

    @Test func betweenGoodRequestsABadOneIsOverwritten() throws {
        let line = try neutralising()
        line.client(good + bad + good)
        #expect(line.text.utf8.count == (good + bad + good).utf8.count)
        #expect(requests(line.text).count == 3 && !line.text.contains("evil"))
        #expect(line.text.hasPrefix(good) && line.text.hasSuffix(good))
        #expect(line.resets == 0 && line.injected.isEmpty && line.blocked == ["1"])
        // The connection lives, and the copy that was let through is the one that counts.
        line.segments([(0, Array((good + bad + good).utf8))])
        line.client(good)
        #expect(requests(line.text).count == 4 && !line.text.contains("evil"))
    }

    @Test(arguments: [0, 10, 3000]) func aBodyIsOverwrittenAsItComes(length: Int) throws {
        let line = try neutralising("drop http any any -> any any (msg:\"t\"; http.uri; content:\"/evil\"; sid:1;)")
        let body = String(repeating: "y", count: length)
        line.client("POST /evil HTTP/1.1\r\nHost: abc\r\nContent-Length: \(length)\r\n\r\n" + body.prefix(length / 3))
        line.client(String(body.dropFirst(length / 3).prefix(length / 3)))
        line.client(body.dropFirst(length / 3 * 2) + good)
        #expect(requests(line.text).count == 2 && line.text.hasSuffix(good) && !line.text.contains("evil") && !line.text.contains("y"))
        #expect(line.resets == 0 && line.blocked == ["1"])
    }

    @Test func lengthsOfHarmlessRequests() throws {
        for total in Array(29...1200) + [4096, 9_999, 10_050, 65_000, 100_060, 1_000_070] {
            let request = try #require(Neutralisation.request(total: total, available: total), "\(total)")
            #expect(request.count == total && requests(String(decoding: request, as: UTF8.self)).count == 1, "\(total)")
        }
        #expect(Neutralisation.request(total: 20, available: 20) == nil)
    }

    @Test func whereItsBeginningPassedTheConnectionIsResetOnceEarlierAnswersAreOut() throws {
        let line = try neutralising()
        line.client(good + "GET /ev")
        line.client("il HTTP/1.1\r\nHost: a\r\n\r\n")
        #expect(line.resets == 0 && line.drops == 1 && line.blocked == ["1"])
        // The client acknowledges the first answer, then repeats.
        line.send(line.wire.packet(offset: good.utf8.count + 7, flags: 16))
        #expect(line.resets == 0)
        line.segments([(good.utf8.count + 7, Array("il HTTP/1.1\r\nHost: a\r\n\r\n".utf8))])
        #expect(line.resets == 1 && line.injected.count == 1)
        #expect(line.text == good + "GET /ev")
    }

    @Test func halfOpenConnectionsAreBounded() throws {
        let filter = try PacketFilter(try Line.compiled(evil), Line.options { $0.halfOpenLimit = 1000 })
        for port in 1...20_000 {
            let syn = Wire(clientPort: UInt16(port)).packet(offset: -1, flags: 2)
            _ = filter.judge(
                syn.span, wireBytes: syn.count, isInbound: true, isChecksumVerified: true, wasSeen: false,
                at: Instant(nanoseconds: UInt64(port) * 1000))
        }
        #expect(filter.flowCount <= 1000)
    }

    @Test func theSameNameAgainAndAgainIsOneConnection() throws {
        let line = try Line(evil)
        for i in 0..<50 {
            let wire = Wire(start: UInt32(i) * 100_000)
            for (n, p) in [wire.packet(offset: -1, flags: 2), wire.answer(), wire.packet(offset: 0, flags: 16)].enumerated() {
                _ = line.filter.judge(
                    p.span, wireBytes: p.count, isInbound: n != 1, isChecksumVerified: true, wasSeen: true,
                    at: Instant(nanoseconds: UInt64(i) * 1_000_000))
            }
            let request = wire.packet(offset: 0, flags: 24, payload: Array((i == 49 ? bad : good).utf8))
            let j = line.filter.judge(
                request.span, wireBytes: request.count, isInbound: true, isChecksumVerified: true, wasSeen: true,
                at: Instant(nanoseconds: UInt64(i) * 1_000_000 + 1))
            #expect(j.events.isEmpty == (i != 49))
            let end = wire.packet(offset: good.utf8.count, flags: 4)
            _ = line.filter.judge(
                end.span, wireBytes: end.count, isInbound: true, isChecksumVerified: true, wasSeen: true,
                at: Instant(nanoseconds: UInt64(i) * 1_000_000 + 2))
        }
        #expect(line.filter.flowCount == 1)
    }
}

/// Random senders against random servers: whatever is tried, what a server reads was judged.
@Suite struct RandomSenderTests {
    private struct Random: RandomNumberGenerator {
        var state: UInt64
        mutating func next() -> UInt64 {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return state ^ state >> 29
        }
    }

    /// Pieces of two streams of the same length, one harmless and one not, in any order, any number of times, with any overlap.
    @Test(arguments: 0..<8) func noMixtureOfTwoStreamsBringsTheBadOneAcross(seed: Int) throws {
        for round in 0..<400 {
            var random = Random(state: UInt64(seed) << 32 | UInt64(round))
            let line = try Line(evil)
            line.prefersLatest = Bool.random(using: &random)
            line.acknowledges = Int.random(in: 0..<4, using: &random) > 0
            line.handshake()
            let first = Bool.random(using: &random) ? good : ""
            if !first.isEmpty { line.client(first) }
            let base = first.utf8.count
            let copies = [Array((good + good).utf8), Array((bad + good).utf8)]
            let count = copies[0].count
            for _ in 0..<Int.random(in: 4..<60, using: &random) {
                let start = Int.random(in: 0..<count, using: &random)
                let length = Int.random(in: 1...min(count - start, 40), using: &random)
                let copy = copies[Int.random(in: 0..<2, using: &random)]
                line.segments([(base + start, Array(copy[start..<(start + length)]))])
                if Int.random(in: 0..<12, using: &random) == 0 {
                    line.send(line.wire.packet(offset: base + start, flags: [4, 17, 16, 1].randomElement(using: &random) ?? 4))
                }
            }
            // What is missing comes from the bad copy.
            for start in stride(from: 0, to: count, by: 7) {
                line.segments([(base + start, Array(copies[1][start..<min(count, start + 7)]))])
            }
            let text = line.text.dropFirst(base)
            #expect(!text.contains("/evil HTTP/1.1\r\nHost: a\r\n\r\n"), "seed \(seed), round \(round): \(line.text)")
        }
    }

    /// One sender who plays by the rules is always served, however the network shuffles and repeats.
    @Test(arguments: 0..<4) func anHonestSenderIsServed(seed: Int) throws {
        for round in 0..<200 {
            var random = Random(state: UInt64(seed + 100) << 32 | UInt64(round))
            let line = try Line(evil)
            line.prefersLatest = Bool.random(using: &random)
            line.handshake()
            line.client(good)
            let stream = Array((good + good + good).utf8)
            var pieces: [(offset: Int, bytes: [UInt8])] = []
            var at = 0
            while at < stream.count {
                let n = min(stream.count - at, Int.random(in: 1...30, using: &random))
                pieces.append((good.utf8.count + at, Array(stream[at..<(at + n)])))
                at += n
            }
            let repeated = pieces.filter { _ in Bool.random(using: &random) }
            line.segments((pieces + repeated).shuffled(using: &random))
            #expect(line.text == good + good + good + good && line.resets == 0 && line.events.isEmpty, "seed \(seed), round \(round)")
        }
    }
}
