// Generates captures of HTTP clients: browsers on keep-alive connections, and uploads, as TCP segments of one size.

import VirtualPatch

/// Packets in one piece of memory, as a capture file has them.
struct Traffic {
    private(set) var bytes: [UInt8] = []
    private(set) var packets: [Range<Int>] = []
    /// What the client's segments carry: for the bare scan.
    private(set) var payloads: [Range<Int>] = []
    private(set) var requests = 0
    private var connections: UInt32 = 0
    /// The server acknowledges each segment.
    private var isAnswered = false

    var payloadBytes: Int { payloads.reduce(0) { $0 + $1.count } }

    /// Connections of `each` requests, until there are `size` bytes. Nine of ten only get, one posts a form or JSON.
    static func browsing(_ size: Int, each: Int = 20, segmentBytes: Int = 1448, isAnswered: Bool = false) -> Traffic {
        var traffic = Traffic()
        traffic.isAnswered = isAnswered
        traffic.bytes.reserveCapacity(size + size / 8)
        var n = 0
        while traffic.bytes.count < size {
            var stream = traffic.open()
            for _ in 0..<each {
                traffic.send(&stream, Traffic.ordinary(n), segmentBytes)
                n += 1
            }
            traffic.requests += each
        }
        return traffic
    }

    /// One upload a connection.
    static func uploads(_ size: Int, each: Int = 8 << 20, segmentBytes: Int = 1448, isAnswered: Bool = false) -> Traffic {
        var traffic = Traffic()
        traffic.isAnswered = isAnswered
        traffic.bytes.reserveCapacity(size + size / 8 + each)
        var seed: UInt64 = 88_172_645_463_325_252
        while traffic.bytes.count < size {
            var stream = traffic.open()
            let head = "PUT /upload HTTP/1.1\r\nHost: a\r\nContent-Type: application/octet-stream\r\nContent-Length: \(each)\r\n\r\n"
            traffic.send(&stream, Array(head.utf8) + text(each, &seed), segmentBytes)
            traffic.requests += 1
        }
        return traffic
    }

    struct Stream {
        var client: UInt32
        var port: UInt16
        var sequence: UInt32
    }

    /// The next connection is number `number`.
    mutating func skip(to number: UInt32) { connections = number }

    mutating func open() -> Stream {
        connections += 1
        var stream = Stream(client: 0x0a00_0000 + connections / 50_000, port: UInt16(10_000 + connections % 50_000), sequence: 1_000)
        packet(stream, toServer: true, 2, [])
        packet(stream, toServer: false, 18, [])
        stream.sequence &+= 1
        packet(stream, toServer: true, 16, [])
        return stream
    }

    mutating func send(_ stream: inout Stream, _ content: [UInt8], _ segmentBytes: Int) {
        for start in stride(from: 0, to: content.count, by: segmentBytes) {
            let part = content[start..<min(content.count, start + segmentBytes)]
            packet(stream, toServer: true, 24, part)
            payloads.append(bytes.count - part.count..<bytes.count)
            stream.sequence &+= UInt32(part.count)
            if isAnswered { packet(stream, toServer: false, 16, [], acknowledgement: stream.sequence) }
        }
    }

    /// IPv4 and TCP without checksums: inline the kernel has verified them.
    private mutating func packet(_ s: Stream, toServer: Bool, _ flags: UInt8, _ content: ArraySlice<UInt8>, acknowledgement: UInt32? = nil)
    {
        func word(_ v: UInt32) -> [UInt8] { [UInt8(v >> 24), UInt8(v >> 16 & 255), UInt8(v >> 8 & 255), UInt8(v & 255)] }
        func half(_ v: UInt16) -> [UInt8] { [UInt8(v >> 8), UInt8(v & 255)] }
        let start = bytes.count
        let (client, server) = (word(s.client), word(0x0aff_0001))
        bytes += [0x45, 0] + half(UInt16(40 + content.count)) + [0, 1, 0, 0, 64, 6, 0, 0] + (toServer ? client + server : server + client)
        bytes += toServer ? half(s.port) + half(80) : half(80) + half(s.port)
        bytes +=
            word(toServer ? s.sequence : 5_000) + word(toServer ? 5_001 : acknowledgement ?? s.sequence &+ 1) + [
                0x50, flags, 0xff, 0xff, 0, 0, 0, 0,
            ]
        bytes += content
        packets.append(start..<bytes.count)
    }

    static func ordinary(_ n: Int) -> [UInt8] {
        let paths = [
            "/", "/index.html", "/static/app.\(n).js?v=3", "/api/v1/items/\(n)?page=2&sort=name", "/images/logo.png",
            "/search?q=red+shoes&size=\(n % 50)", "/blog/2024/05/how-to-knit?utm_source=mail&utm_campaign=may", "/account/orders/\(n)",
        ]
        let common = """
            Host: www.example.org\r
            User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r
            Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r
            Accept-Language: en-US,en;q=0.5\r
            Accept-Encoding: gzip, deflate, br\r
            Referer: https://www.example.org/start\r
            Connection: keep-alive\r
            Cookie: session=0123456789abcdef\(n); theme=dark\r

            """
        if n % 20 == 9 {
            return post("/login", "application/x-www-form-urlencoded", "user=anna\(n)&password=hunter2&next=%2Faccount", common)
        }
        if n % 20 == 19 { return post("/api/v1/cart", "application/json", "{\"item\": \(n), \"count\": 2, \"note\": \"a gift\"}", common) }
        return Array("GET \(paths[n % paths.count]) HTTP/1.1\r\n\(common)\r\n".utf8)
    }

    private static func post(_ path: String, _ type: String, _ body: String, _ common: String) -> [UInt8] {
        Array("POST \(path) HTTP/1.1\r\n\(common)Content-Type: \(type)\r\nContent-Length: \(body.utf8.count)\r\n\r\n\(body)".utf8)
    }

    /// Letters, digits and signs without any pattern.
    private static func text(_ size: Int, _ state: inout UInt64) -> [UInt8] {
        var out: [UInt8] = []
        out.reserveCapacity(size + 8)
        while out.count < size {
            state ^= state << 13
            state ^= state >> 7
            state ^= state << 17
            for shift in stride(from: UInt64(0), to: 64, by: 8) { out.append(UInt8(32 + (state >> shift & 63))) }
        }
        out.removeLast(out.count - size)
        return out
    }
}
