// Makes IP packets of one TCP connection, with checksums, for tests.

import VirtualPatch

final class Wire {
    private(set) var packets: [[UInt8]] = []
    private let isV6: Bool
    private let start: UInt32
    private var sent = 0

    private let clientPort: UInt16
    private let serverPort: UInt16

    init(start: UInt32 = 1000, isV6: Bool = false, clientPort: UInt16 = 40_000, serverPort: UInt16 = 80) {
        self.start = start
        self.isV6 = isV6
        self.clientPort = clientPort
        self.serverPort = serverPort
    }

    /// One UDP packet to a server.
    static func datagram(_ payload: [UInt8], serverPort: UInt16) -> [UInt8] {
        let length = 8 + payload.count, total = 20 + length
        var ip: [UInt8] = [0x45, 0, UInt8(total >> 8), UInt8(total & 255), 0, 1, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]
        put(sum(ip), &ip, 10)
        return ip + [0x9c, 0x40, UInt8(serverPort >> 8), UInt8(serverPort & 255), UInt8(length >> 8), UInt8(length & 255), 0, 0] + payload
    }

    func handshake() {
        packets.append(packet(toServer: true, start, 0, 2, []))
        packets.append(packet(toServer: false, 5000, start &+ 1, 18, []))
        packets.append(packet(toServer: true, start &+ 1, 5001, 16, []))
    }

    func client(_ text: String) { client(Array(text.utf8)) }
    func client(_ bytes: [UInt8]) {
        segments([(sent, bytes)])
        sent += bytes.count
    }

    /// Segments at offsets of the client's stream.
    func segments(_ parts: [(offset: Int, bytes: [UInt8])]) {
        for part in parts {
            packets.append(packet(toServer: true, start &+ 1 &+ UInt32(truncatingIfNeeded: part.offset), 5001, 24, part.bytes))
        }
    }

    func breakLastChecksum() {
        let i = packets.count - 1
        packets[i][packets[i].count - 1] ^= 1
    }

    /// The last packet as fragments of `size` bytes.
    func fragmentLast(into size: Int, reversed: Bool) {
        let whole = packets.removeLast()
        let header = isV6 ? 40 : 20
        let content = Array(whole[header...])
        var parts: [[UInt8]] = []
        for at in stride(from: 0, to: content.count, by: size) {
            let end = min(content.count, at + size)
            let more = end < content.count
            var head = Array(whole[..<header])
            if isV6 {
                head[4] = UInt8((end - at + 8) >> 8)
                head[5] = UInt8((end - at + 8) & 255)
                head[6] = 44
                let word = UInt16(at) | (more ? 1 : 0)
                head += [6, 0, UInt8(word >> 8), UInt8(word & 255), 0, 0, 0, 9]
            } else {
                head[2] = UInt8((20 + end - at) >> 8)
                head[3] = UInt8((20 + end - at) & 255)
                let word = UInt16(at / 8) | (more ? 0x2000 : 0)
                head[5] = 9
                head[6] = UInt8(word >> 8)
                head[7] = UInt8(word & 255)
                head[10] = 0
                head[11] = 0
                Self.put(Self.sum(head), &head, 10)
            }
            parts.append(head + content[at..<end])
        }
        packets += reversed ? parts.reversed() : parts
    }

    func run(_ engine: Engine) -> Engine.Outcome {
        var all = Engine.Outcome()
        for (i, packet) in packets.enumerated() {
            let outcome = engine.inspect(packet: packet.span, at: Instant(nanoseconds: UInt64(i) * 1_000_000))
            all.findings += outcome.findings
            if all.verdict == .pass { all.verdict = outcome.verdict }
        }
        all.findings += engine.finish().findings
        return all
    }

    /// One packet of the client at an offset of its stream; -1 is the SYN's place.
    func packet(offset: Int, flags: UInt8, urgent: UInt16 = 0, payload: [UInt8] = []) -> [UInt8] {
        let sequence = start &+ 1 &+ UInt32(truncatingIfNeeded: offset)
        return packet(toServer: true, sequence, flags == 2 ? 0 : 5001, flags, payload, urgent: urgent)
    }

    /// The server answers the SYN.
    func answer() -> [UInt8] { packet(toServer: false, 5000, start &+ 1, 18, []) }

    /// The server has the client's first `count` bytes.
    func acknowledgement(of count: Int) -> [UInt8] {
        packet(toServer: false, 5001, start &+ 1 &+ UInt32(truncatingIfNeeded: count), 16, [])
    }

    /// Where in the client's stream a packet's payload begins.
    func offset(of packet: [UInt8]) -> Int { Int(Int32(bitPattern: Self.sequence(packet) &- start &- 1)) }

    private static func transport(_ packet: [UInt8]) -> Int { packet[0] >> 4 == 6 ? 40 : 20 }
    static func flags(_ packet: [UInt8]) -> UInt8 { packet[transport(packet) + 13] }
    static func sequence(_ packet: [UInt8]) -> UInt32 {
        let at = transport(packet) + 4
        return packet[at..<(at + 4)].reduce(0) { $0 << 8 | UInt32($1) }
    }
    static func payload(_ packet: [UInt8]) -> [UInt8] {
        let at = transport(packet)
        return packet[0] >> 4 == 4 && packet[9] == 17 ? [] : Array(packet[(at + Int(packet[at + 12] >> 4) * 4)...])
    }

    static func hasGoodChecksums(_ packet: [UInt8]) -> Bool {
        let isV6 = packet[0] >> 4 == 6
        let at = transport(packet)
        if !isV6 {
            guard sum(Array(packet[..<20])) == 0, Int(packet[2]) << 8 | Int(packet[3]) == packet.count else { return false }
            if packet[9] == 17 { return true }
        } else if Int(packet[4]) << 8 | Int(packet[5]) != packet.count - 40 {
            return false
        }
        let addresses = isV6 ? Array(packet[8..<40]) : Array(packet[12..<20])
        let length = packet.count - at
        return sum(addresses + [0, 6, UInt8(length >> 8), UInt8(length & 255)] + packet[at...]) == 0
    }

    private func packet(
        toServer: Bool, _ sequence: UInt32, _ acknowledgement: UInt32, _ flags: UInt8, _ payload: [UInt8], urgent: UInt16 = 0
    ) -> [UInt8] {
        func word(_ v: UInt32) -> [UInt8] { [UInt8(v >> 24), UInt8(v >> 16 & 255), UInt8(v >> 8 & 255), UInt8(v & 255)] }
        let client: [UInt8] = isV6 ? [0xfd] + Array(repeating: 0, count: 14) + [1] : [10, 0, 0, 1]
        let server: [UInt8] = isV6 ? [0xfd] + Array(repeating: 0, count: 14) + [2] : [10, 0, 0, 2]
        let (source, destination) = toServer ? (client, server) : (server, client)
        func port(_ p: UInt16) -> [UInt8] { [UInt8(p >> 8), UInt8(p & 255)] }
        var tcp = toServer ? port(clientPort) + port(serverPort) : port(serverPort) + port(clientPort)
        tcp += word(sequence) + word(acknowledgement) + [0x50, flags, 0xff, 0xff, 0, 0, UInt8(urgent >> 8), UInt8(urgent & 255)] + payload
        let pseudo = source + destination + [0, 6, UInt8(tcp.count >> 8), UInt8(tcp.count & 255)]
        Self.put(Self.sum(pseudo + tcp), &tcp, 16)
        if isV6 { return [0x60, 0, 0, 0, UInt8(tcp.count >> 8), UInt8(tcp.count & 255), 6, 64] + source + destination + tcp }
        let length = 20 + tcp.count
        var ip: [UInt8] = [0x45, 0, UInt8(length >> 8), UInt8(length & 255), 0, 1, 0, 0, 64, 6, 0, 0] + source + destination
        Self.put(Self.sum(ip), &ip, 10)
        return ip + tcp
    }

    private static func sum(_ bytes: [UInt8]) -> UInt16 {
        var total: UInt32 = 0
        for i in stride(from: 0, to: bytes.count, by: 2) {
            total += UInt32(bytes[i]) << 8 | (i + 1 < bytes.count ? UInt32(bytes[i + 1]) : 0)
        }
        while total >> 16 != 0 { total = total & 0xffff + total >> 16 }
        return ~UInt16(total)
    }
    private static func put(_ v: UInt16, _ bytes: inout [UInt8], _ at: Int) {
        bytes[at] = UInt8(v >> 8)
        bytes[at + 1] = UInt8(v & 255)
    }
}
