// Evasions above TCP: ways to say a request so that a filter reads another than the server does.

import ELF
import Foundation
import ProcessControl
import Testing

/// One way to say the exploit to a web server.
struct RequestEvasion: Sendable, CustomTestStringConvertible {
    var name: String
    /// What the server's own answer is where nothing filters: how many responses.
    var responses = 1
    var perform: @Sendable (Talk) throws -> Void

    var testDescription: String { name }

    init(_ name: String, responses: Int = 1, _ perform: @escaping @Sendable (Talk) throws -> Void) {
        (self.name, self.responses, self.perform) = (name, responses, perform)
    }

    static let compressed = Result { try ChildProcess.run(["gzip", "-nc"], input: Array(("name=" + payload).utf8)).output }
    static let payload = "EVILPAYLOAD"

    /// Whether an exploit arrived whole: a request line or a body that says it as it stands, decoded, or decoded once more.
    static func reached(_ nginx: Nginx) throws -> Bool {
        if try nginx.wholeRequests.contains(where: { readings($0.line).contains { $0.contains("/evil-path") } }) { return true }
        let gz = try compressed.get()
        return try nginx.bodies.contains { body in
            readings(String(decoding: body, as: UTF8.self)).contains { $0.contains(payload) } || body == gz
        }
    }

    private static func readings(_ text: String) -> [String] {
        let once = text.removingPercentEncoding ?? text
        return [text, once, once.removingPercentEncoding ?? once]
    }

    private static func get(_ name: String, _ target: String) -> RequestEvasion {
        RequestEvasion(name) { try $0.send("GET \(target) HTTP/1.1\r\nHost: x\r\n\r\n") }
    }

    private static func post(_ name: String, _ headers: String, _ body: String, responses: Int = 1) -> RequestEvasion {
        RequestEvasion(name, responses: responses) { try $0.send("POST / HTTP/1.1\r\nHost: x\r\n\(headers)\r\n" + body) }
    }

    private static func late(_ name: String, after bytes: Int) -> RequestEvasion {
        RequestEvasion(name) {
            try $0.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: \(bytes + payload.utf8.count)\r\n\r\n")
            try $0.fill(bytes)
            try $0.send(payload)
        }
    }

    static let chunked = "Transfer-Encoding: chunked\r\n"
    static let good = "GET /good-path HTTP/1.1\r\nHost: x\r\n\r\n", bad = "GET /evil-path HTTP/1.1\r\nHost: x\r\n\r\n"

    static let all: [RequestEvasion] =
        targets + framing + lengths + [
            RequestEvasion("second on a kept connection", responses: 2) {
                try $0.send(good)
                _ = try $0.expect(1)
                try $0.send(bad)
            },
            RequestEvasion("pipelined behind a good one", responses: 2) { try $0.send(good + bad) },
            RequestEvasion("pipelined between good ones", responses: 3) { try $0.send(good + bad + good) },
            RequestEvasion("pipelined behind a body", responses: 2) {
                try $0.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello" + bad)
            },
            RequestEvasion("pipelined behind a chunked body", responses: 2) {
                try $0.send("POST / HTTP/1.1\r\nHost: x\r\n\(chunked)\r\n5\r\nhello\r\n0\r\n\r\n" + bad)
            },
            RequestEvasion("after one body of 1.3 MB", responses: 2) {
                try $0.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1300000\r\n\r\n")
                try $0.fill(1_300_000)
                _ = try $0.expect(1)
                try $0.send(bad)
            },
            RequestEvasion("after thirteen bodies of 100 KB", responses: 14) {
                for _ in 0..<13 {
                    try $0.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n")
                    try $0.fill(100_000)
                    _ = try $0.expect(1)
                }
                try $0.send(bad)
            },
            RequestEvasion("the hundredth on a kept connection", responses: 100) {
                for _ in 0..<99 {
                    try $0.send(good)
                    _ = try $0.expect(1)
                }
                try $0.send(bad)
            },
            RequestEvasion("the client has ended its side") {
                try $0.send(bad)
                try $0.half()
            },
        ]

    private static let targets: [RequestEvasion] = [
        get("plain", "/evil-path"),
        RequestEvasion("a segment for each byte") { try $0.sendByteByByte(bad) },
        get("encoded once", "/%65vil-path"),
        get("encoded whole", "/%65%76%69%6c%2D%70%61%74%68"),
        get("encoded twice", "/%2565vil-path"),
        get("/./", "/./evil-path"),
        get("/../", "/a/../evil-path"),
        get("//", "//evil-path"),
        get("/../ encoded", "/a/%2e%2e/evil-path"),
        get("in a query's place", "/a?b=/evil-path"),
        get("absolute", "http://x/evil-path"),
        get("long before it", "/" + String(repeating: "a/", count: 3000) + "evil-path"),
        RequestEvasion("HTTP/1.0") { try $0.send("GET /evil-path HTTP/1.0\r\n\r\n") },
        RequestEvasion("no version at all") { try $0.send("GET /evil-path\r\n") },
        RequestEvasion("line ends without CR") { try $0.send("GET /evil-path HTTP/1.1\nHost: x\n\n") },
        RequestEvasion("empty lines before it") { try $0.send("\r\n\r\n" + bad) },
        RequestEvasion("a method nobody knows") { try $0.send("EVIL /evil-path HTTP/1.1\r\nHost: x\r\n\r\n") },
        RequestEvasion("many headers") {
            try $0.send("GET /evil-path HTTP/1.1\r\nHost: x\r\n" + (0..<90).map { "X-\($0): y\r\n" }.joined() + "\r\n")
        },
        RequestEvasion("long headers") {
            try $0.send("GET /evil-path HTTP/1.1\r\nHost: x\r\nX-Long: \(String(repeating: "a", count: 40_000))\r\n\r\n")
        },
        RequestEvasion("an offer to change the protocol") {
            try $0.send("GET /evil-path HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        },
    ]

    private static let framing: [RequestEvasion] = [
        post("body", "Content-Length: 11\r\n", payload),
        post("chunked", chunked, "b\r\n\(payload)\r\n0\r\n\r\n"),
        post("chunks of one byte", chunked, payload.map { "1\r\n\($0)\r\n" }.joined() + "0\r\n\r\n"),
        RequestEvasion("chunks of one byte, a segment for each byte") {
            try $0.send("POST / HTTP/1.1\r\nHost: x\r\n\(chunked)\r\n")
            try $0.sendByteByByte(payload.map { "1\r\n\($0)\r\n" }.joined() + "0\r\n\r\n")
        },
        post("chunk extensions", chunked, payload.map { "1;a=\"b\"\r\n\($0)\r\n" }.joined() + "0\r\n\r\n"),
        post("chunk sizes with zeros", chunked, payload.map { "0000001\r\n\($0)\r\n" }.joined() + "0\r\n\r\n"),
        post("chunk line ends without CR", chunked, payload.map { "1\n\($0)\n" }.joined() + "0\n\n"),
        post("Chunked in capitals", "Transfer-Encoding: CHUNKED\r\n", "b\r\n\(payload)\r\n0\r\n\r\n"),
        post("a trailer behind it", chunked, "b\r\n\(payload)\r\n0\r\nX: y\r\n\r\n"),
        post("form, encoded", "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 18\r\n", "name=EVIL%50AYLOAD"),
        post(
            "form, encoded whole", "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 38\r\n",
            "name=" + payload.utf8.map { "%" + String($0, radix: 16) }.joined()),
        post(
            "form in chunks, encoded", "Content-Type: application/x-www-form-urlencoded\r\n" + chunked,
            "name=EVIL%50AYLOAD".map { "1\r\n\($0)\r\n" }.joined() + "0\r\n\r\n"),
        RequestEvasion("gzip") {
            let gz = try compressed.get()
            try $0.send(Array("POST / HTTP/1.1\r\nHost: x\r\nContent-Encoding: gzip\r\nContent-Length: \(gz.count)\r\n\r\n".utf8) + gz)
        },
        RequestEvasion("gzip in chunks of one byte") {
            let gz = try compressed.get()
            try $0.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Encoding: gzip\r\n\(chunked)\r\n")
            try $0.send(gz.flatMap { Array("1\r\n".utf8) + [$0, 13, 10] } + Array("0\r\n\r\n".utf8))
        },
        RequestEvasion("the client waits for 100") {
            try $0.send("POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 11\r\n\r\n")
            _ = try $0.expect(1)
            try $0.send(payload)
        },
    ]

    private static let lengths: [RequestEvasion] = [
        late("after 120 KB of body", after: 120_000),
        late("after 900 KB of body", after: 900_000),
        late("after 10 MB of body", after: 10_000_000),
        RequestEvasion("after 10 MB of chunks") {
            try $0.send("POST / HTTP/1.1\r\nHost: x\r\n\(chunked)\r\n")
            try $0.fill(10_000_000 / 507 * 507, "1f4\r\n" + String(repeating: "a", count: 500) + "\r\n")
            try $0.send("b\r\n\(payload)\r\n0\r\n\r\n")
        },
    ]
}
