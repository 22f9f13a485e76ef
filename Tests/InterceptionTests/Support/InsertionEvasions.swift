// Evasions by packets that the server's kernel throws away, and a careless filter believes; and by how IP carries TCP.

extension Evasion {
    /// The decoy in a segment that no kernel takes, then the exploit.
    private static func inserted(
        _ name: String, versions: Set<Int> = [4, 6], clock: UInt32? = nil, offset: Int = 0, _ flags: Flags = [.push, .ack],
        _ bytes: [UInt8] = decoy, perByte: Bool = false, _ change: @escaping @Sendable (inout Segment) -> Void
    ) -> Evasion {
        Evasion(name: name, versions: versions) { a in
            a.clock = clock
            try a.connect()
            if perByte {
                for at in stride(from: 0, to: exploit.count, by: 8) {
                    let range = at..<min(at + 8, exploit.count)
                    try a.send(offset + at, bytes[range], flags, change)
                    try a.send(at, exploit[range])
                }
            } else {
                try a.send(offset, bytes, flags, change)
                try a.send(0, exploit)
            }
        }
    }

    static let insertions: [Evasion] = [
        inserted("decoy with a bad checksum") { $0.hasBadChecksum = true },
        inserted("decoy with a bad checksum, every eight bytes", perByte: true) { $0.hasBadChecksum = true },
        inserted("decoy with an MD5 signature") { $0.options = Segment.signature },
        inserted("decoy with an MD5 signature, every eight bytes", perByte: true) { $0.options = Segment.signature },
        inserted("decoy that acknowledges what was never sent") { $0.acknowledgement &+= 100_000 },
        inserted("decoy that acknowledges too old a byte") { $0.acknowledgement &-= 2_000_000_000 },
        inserted("decoy without ACK", .push) { $0.acknowledgement = 0 },
        inserted("decoy without any flag", []) { $0.acknowledgement = 0 },
        inserted("decoy with SYN", [.syn, .push, .ack]) { _ in },
        inserted("decoy with an old timestamp", clock: 500_000) { $0.options = Segment.timestamps(1000, 0) },
        inserted("decoy with an old timestamp, every eight bytes", clock: 500_000, perByte: true) {
            $0.options = Segment.timestamps(1000, 0)
        },
        inserted("decoy beyond the window", offset: 5_000_000) { _ in },
        inserted("decoy before the window", offset: -5_000_000) { _ in },
        inserted("decoy whose header is too short") { $0.dataOffset = 4 },
        inserted("decoy whose header is longer than the packet") {
            $0.dataOffset = 15; $0.bytes = Array($0.bytes.prefix(8))
        },
        inserted("decoy with RST and a bad checksum", [.reset, .ack]) { $0.hasBadChecksum = true },
    ]

    /// The connection seems to end before the exploit.
    static let ends: [Evasion] = [
        inserted("RST beyond the window", offset: 9_000_000, .reset, []) { _ in },
        inserted("RST inside the window, but not the next byte", offset: 10, .reset, []) { _ in },
        inserted("RST with ACK before the window", offset: -1000, [.reset, .ack], []) { _ in },
        inserted("RST with a bad checksum", .reset, []) { $0.hasBadChecksum = true },
        inserted("RST with an MD5 signature", .reset, []) { $0.options = Segment.signature },
        inserted("FIN beyond the window", offset: 9_000_000, [.fin, .ack], []) { _ in },
        inserted("FIN with a bad checksum", [.fin, .ack], []) { $0.hasBadChecksum = true },
        inserted("FIN that acknowledges what was never sent", [.fin, .ack], []) { $0.acknowledgement &+= 100_000 },
        Evasion(name: "FIN at the end, queued before what it ends") { a in
            try a.connect()
            try a.send(exploit.count, [], [.fin, .ack])
            try a.send(0, exploit)
        },
        Evasion(name: "FIN in the middle, bytes after it", reaches: false) { a in
            try a.connect()
            try a.send(0, exploit[..<7], [.push, .ack, .fin])
            try a.listen()
            try a.send(8, exploit[7...])
        },
        Evasion(name: "a filter's idea of TIME_WAIT: RST that ends one connection, the next on the same port") { a in
            try a.connect()
            try a.send(0, decoy)
            try a.listen(.milliseconds(30))
            try a.send(decoy.count, [], .reset)
            let second = Attack(after: a)
            try second.connect()
            try second.send(0, exploit)
            try second.insist(on: exploit)
        },
    ]

    /// A decoy or an end that dies at the router behind the filter.
    static let hops: [Evasion] = [
        Evasion(name: "decoy that does not live to the server", routers: 2) { a in
            try a.connect()
            a.carrier.hops = 2
            try a.send(0, decoy)
            a.carrier.hops = 64
            try a.send(0, exploit)
        },
        Evasion(name: "decoy's middle that does not live to the server", routers: 2) { a in
            try a.connect()
            try a.send(0, exploit[..<5])
            a.carrier.hops = 2
            try a.send(5, decoy[5..<9])
            a.carrier.hops = 64
            try a.send(5, exploit[5...])
        },
        Evasion(name: "RST that does not live to the server", routers: 2) { a in
            try a.connect()
            a.carrier.hops = 2
            try a.send(0, [], .reset)
            a.carrier.hops = 64
            try a.send(0, exploit)
        },
        Evasion(name: "FIN that does not live to the server", routers: 2) { a in
            try a.connect()
            a.carrier.hops = 2
            try a.send(0, [], [.fin, .ack])
            a.carrier.hops = 64
            try a.send(0, exploit)
        },
    ]

    static let carriers: [Evasion] = [
        Evasion(name: "fragments of 8 bytes") { a in
            try a.connect()
            try a.sendFragments(0, exploit, size: 8)
        },
        Evasion(name: "fragments, last first") { a in
            try a.connect()
            let whole = a.segment(0, exploit).encoded(from: a.source, to: a.destination)
            let pieces = stride(from: 0, to: whole.count, by: 16).map {
                (at: $0, content: Array(whole[$0..<min($0 + 16, whole.count)]), isLast: $0 + 16 >= whole.count)
            }
            try a.sendFragments(0, exploit, pieces.reversed())
        },
        overlapping("fragments, the decoy's first and the exploit's over it", first: decoy, second: exploit),
        overlapping("fragments, the exploit's first and the decoy's over it", first: exploit, second: decoy),
        Evasion(name: "a fragment twice") { a in
            try a.connect()
            let whole = a.segment(0, exploit).encoded(from: a.source, to: a.destination)
            let half = 24
            try a.sendFragments(
                0, exploit,
                [(0, Array(whole[..<half]), false), (0, Array(whole[..<half]), false), (half, Array(whole[half...]), true)])
        },
        Evasion(name: "IPv4 options", versions: [4]) { a in
            a.carrier.extras = [1, 1, 1, 1, 1, 1, 1, 0]
            try a.connect()
            try a.send(0, exploit)
        },
        Evasion(name: "IPv6 destination options", versions: [6]) { a in
            a.carrier.extras = [6, 0, 1, 4, 0, 0, 0, 0]
            try a.connect()
            try a.send(0, exploit)
        },
        Evasion(name: "IPv6 hop-by-hop options", versions: [6]) { a in
            a.carrier.extras = [6, 0, 1, 4, 0, 0, 0, 0]
            a.carrier.firstExtra = 0
            try a.connect()
            try a.send(0, exploit)
        },
    ]

    /// Kernels throw the whole packet away, or keep one copy; the attacker then insists on the exploit.
    private static func overlapping(_ name: String, first: [UInt8], second: [UInt8]) -> Evasion {
        Evasion(name: name) { a in
            try a.connect()
            let one = a.segment(0, first).encoded(from: a.source, to: a.destination)
            let two = a.segment(0, second).encoded(from: a.source, to: a.destination)
            try a.sendFragments(
                0, exploit,
                [
                    (24, Array(one[24..<40]), false), (24, Array(two[24..<40]), false), (0, Array(two[..<24]), false),
                    (40, Array(two[40...]), true),
                ])
        }
    }

    static let synData: [Evasion] = [
        Evasion(name: "decoy in the SYN, exploit at the same offset") { a in
            try a.connect(inSYN: decoy)
            try a.send(0, exploit)
        },
        Evasion(name: "exploit in the SYN") { a in
            try a.connect(inSYN: exploit)
        },
        Evasion(name: "exploit in the SYN, which the server takes (fast open)", settings: ["net.ipv4.tcp_fastopen=1538"]) { a in
            try a.connect(inSYN: exploit, options: [34, 2, 1, 1])
        },
        Evasion(
            name: "decoy in the SYN, which the server takes, exploit behind it", stream: decoy + exploit,
            settings: ["net.ipv4.tcp_fastopen=1538"]
        ) { a in
            try a.connect(inSYN: decoy, options: [34, 2, 1, 1])
            try a.send(decoy.count, exploit)
        },
    ]
}
