// The parsers of rules and traffic: rule files of both languages, packets of several flows, and both directions of HTTP.
// Apart from the other targets, so that their fuzzers build without the rooms of live patches and what those need.

import ELF
import Interception
import VirtualPatch

public enum TrafficFuzzTargets {
    public static let all: [(name: String, run: @Sendable ([UInt8]) -> Void)] = [
        ("rules", rules), ("packets", packets), ("http", http),
    ]

    /// Rules of one shape each, so that every kind of test runs on what the fuzzers make.
    private static let judge: CompiledRules? = try? CompiledRules(
        RuleSet.load([RuleSet.File(name: "fuzz.rules", bytes: Array(judging.utf8))]).rules
            + RuleSet.load([RuleSet.File(name: "fuzz.yaml", bytes: Array(zones.utf8))]).rules)

    private static let judging = """
        drop http any any -> any any (flow:to_server; http.uri; content:"/a"; content:"b"; distance:0; within:9; sid:1;)
        drop http any any -> any any (flow:to_server; http.request_body; content:"ab"; content:!"c"; sid:2;)
        drop http any any -> any any (flow:to_server; http.request_body; content:"ab"; pcre:"/b.*[0-9]+x/R"; sid:3;)
        drop http any any -> any any (flow:to_server; http.header; content:"a"; http.cookie; content:"b"; endswith; sid:4;)
        drop http any any -> any any (flow:to_client; file.data; content:"ab"; isdataat:4,relative; sid:5;)
        drop tcp any any -> any any (content:"ab"; byte_jump:1,0,relative; content:"c"; within:4; sid:6;)
        drop tcp any any -> any any (content:"ab"; byte_extract:2,0,n,relative; byte_test:2,>,n,0,relative; sid:7;)
        drop udp any any -> any any (content:"ab"; base64_decode:relative; base64_data; content:"c"; sid:8;)
        drop dns any any -> any any (dns.query; content:"ab"; sid:9;)
        drop tls any any -> any any (tls.sni; content:"ab"; sid:10;)
        drop ssh any any -> any any (ssh.software; content:"ab"; sid:11;)
        drop smtp any any -> any any (content:"ab"; sid:12;)
        drop tcp any any -> any any (content:"first"; content:"second"; distance:0; threshold:type limit, track by_src, count 1, seconds 9; sid:13;)
        drop icmp any any -> any any (itype:8; content:"ab"; sid:14;)
        drop tcp any any -> any any (flow:to_server; content:"ab"; pcre:"/x[^y]*z/"; sid:15;)
        drop tcp any any -> any any (flow:to_server; content:"ab"; content:!"c"; sid:16;)
        drop tcp any any -> any any (flow:established,to_server; content:"ab"; isdataat:!4,relative; sid:17;)
        drop tcp-pkt any any -> any any (dsize:>4; content:"ab"; offset:1; depth:9; flags:PA; sid:18;)
        drop http any any -> any any (flow:to_server; http.uri; to_lowercase; content:"ab"; pcrexform:"a(.*)b"; content:"c"; sid:19;)
        drop http any any -> any any (http.user_agent; strip_whitespace; content:"ab"; bsize:<9; http.host; dotprefix; content:".a"; sid:20;)
        drop tcp any any -> any any (byte_math:bytes 2,offset 0,oper *,rvalue 3,result m; byte_test:1,<,m,2; content:"ab"; sid:21;)
        drop http any any -> any any (flowbits:set,x; http.method; content:"POST"; noalert; sid:22;)
        drop http any any -> any any (flowbits:isset,x; http.stat_code; content:"200"; sid:23;)
        drop http any any -> any any (flow:to_server; http.uri; content:"/a"; content:"ab"; sid:24; http.header_names; content:"a";)
        drop smtp any any -> any any (flow:to_server; file.data; content:"ab"; pcre:"/b+c/R"; sid:25;)
        drop ip any any -> any any (ipv4.hdr; content:"|06|"; offset:9; depth:1; content:"ab"; sid:26;)
        """
    private static let zones = """
        name: crowdsecurity/fuzz
        rules:
          - or:
            - zones: [ARGS, BODY_ARGS]
              transform: [lowercase, urldecode]
              match: {type: contains, value: "ab"}
            - zones: [COOKIES, HEADERS]
              transform: [b64decode, normalizepath]
              match: {type: regex, value: "a.*b"}
            - zones: [BODY_ARGS]
              variables: [json.a.b]
              transform: [count]
              match: {type: gte, value: 1}
        """

    /// A rule file; the first byte says which language.
    @Sendable public static func rules(_ bytes: [UInt8]) {
        guard let first = bytes.first else { return }
        let name = first & 1 == 0 ? "fuzz.rules" : "fuzz.yaml"
        let set = RuleSet.load([RuleSet.File(name: name, bytes: Array(bytes.dropFirst()))])
        for rule in set.rules { _ = rule.explanation.count + rule.service.count }
        guard let compiled = try? CompiledRules(set.rules), let engine = try? Engine(compiled) else { return }
        _ = engine.inspect(request: Array("POST /a?b=c HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\na=b&c=%41".utf8))
    }

    /// IP packets, each behind two bytes of length; with a first byte that is even, what is a capture file is read as one too.
    @Sendable public static func packets(_ bytes: [UInt8]) {
        guard let first = bytes.first, let judge else { return }
        var options = EngineOptions()
        options.verifiesChecksums = first & 2 != 0
        options.requestsOnly = first & 4 != 0
        options.picksUpMidstream = first & 8 == 0
        options.enforces = first & 16 != 0
        options.outOfOrderLimitBytes = 4 << 10
        options.memoryLimitBytes = 64 << 10
        guard let engine = try? Engine(judge, options) else { return }
        let content = Array(bytes.dropFirst())
        if first & 1 == 0, let capture = try? Capture(content, name: "fuzz") {
            for record in capture.records {
                guard let packet = record.packet else { continue }
                _ = engine.inspect(packet: content.span.extracting(packet), at: record.time)
            }
        } else {
            var at = 1
            var time: UInt64 = 0
            while at + 2 <= bytes.count {
                let length = Int(bytes[at]) << 8 | Int(bytes[at + 1])
                let end = min(bytes.count, at + 2 + length)
                time &+= 1 << 28
                _ = engine.inspect(packet: bytes.span.extracting((at + 2)..<end), at: Instant(nanoseconds: time))
                at = end
            }
        }
        _ = engine.finish()
    }

    /// Both directions of a connection: the first byte chooses profile and mode, the second how much the client sends.
    @Sendable public static func http(_ bytes: [UInt8]) {
        guard bytes.count > 2, let judge else { return }
        var options = EngineOptions()
        options.profile = ServerProfile.allCases[Int(bytes[0]) % ServerProfile.allCases.count]
        options.requestsOnly = bytes[0] & 16 != 0
        options.isStrict = bytes[0] & 32 != 0
        options.wholeBodyBytes = 256
        options.headerLimitBytes = 4 << 10
        guard let engine = try? Engine(judge, options) else { return }
        let split = 2 + (bytes.count - 2) * Int(bytes[1]) / 255
        _ = engine.inspect(request: Array(bytes[2..<split]), responses: options.requestsOnly ? [] : Array(bytes[split...]))
    }
}
