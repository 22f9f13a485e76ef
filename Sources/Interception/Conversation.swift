// Makes the packets of one conversation from bytes that are at hand in order, so that the engine judges them as on a wire.

import ELF
import VirtualPatch

/// One client and one server on TCP or UDP, both on the loopback address. What the engine says of each packet is handed on.
public struct Conversation: ~Copyable {
    public enum Transport: Sendable { case tcp, udp }

    /// Bytes of one TCP segment at most; a datagram is always one packet.
    public static let segmentBytes = 16 << 10

    private let engine: Engine
    private let transport: Transport
    private let clientPort: UInt16
    private let serverPort: UInt16
    private var next: (client: UInt32, server: UInt32) = (1, 1)
    private var isOpen = false

    /// `clientPort` tells conversations of one engine apart.
    public init(_ engine: Engine, _ transport: Transport, serverPort: UInt16, clientPort: UInt16 = 40_000) {
        self.engine = engine
        self.transport = transport
        self.serverPort = serverPort
        self.clientPort = clientPort
    }

    /// The handshake, if it is still due, then the bytes.
    public mutating func send(_ bytes: [UInt8], toServer: Bool = true, at time: Instant = Instant(nanoseconds: 0)) -> Engine.Outcome {
        var all = open(at: time)
        if transport == .udp {
            all.add(engine.inspect(packet: datagram(bytes[...], toServer: toServer).span, at: time))
            return all
        }
        for start in stride(from: 0, to: bytes.count, by: Self.segmentBytes) {
            let part = bytes[start..<min(bytes.count, start + Self.segmentBytes)]
            all.add(engine.inspect(packet: segment(part, flags: 0x18, toServer: toServer).span, at: time))
        }
        return all
    }

    /// Both sides say that nothing more comes.
    public mutating func close(at time: Instant = Instant(nanoseconds: 0)) -> Engine.Outcome {
        guard transport == .tcp, isOpen else { return Engine.Outcome() }
        isOpen = false
        var all = engine.inspect(packet: segment([], flags: 0x11, toServer: true).span, at: time)
        all.add(engine.inspect(packet: segment([], flags: 0x11, toServer: false).span, at: time))
        return all
    }

    private mutating func open(at time: Instant) -> Engine.Outcome {
        guard transport == .tcp, !isOpen else { return Engine.Outcome() }
        isOpen = true
        var all = engine.inspect(packet: segment([], flags: 0x02, toServer: true).span, at: time)
        all.add(engine.inspect(packet: segment([], flags: 0x12, toServer: false).span, at: time))
        all.add(engine.inspect(packet: segment([], flags: 0x10, toServer: true).span, at: time))
        return all
    }

    // MARK: packets

    private mutating func segment(_ payload: ArraySlice<UInt8>, flags: UInt8, toServer: Bool) -> [UInt8] {
        let sequence = toServer ? next.client : next.server, acknowledged = toServer ? next.server : next.client
        let header =
            ports(toServer) + Self.word(sequence) + Self.word(flags == 0x02 ? 0 : acknowledged) + [0x50, flags, 0xff, 0xff, 0, 0, 0, 0]
        let taken = UInt32(payload.count) &+ (flags & 0x03 != 0 ? 1 : 0)
        if toServer { next.client &+= taken } else { next.server &+= taken }
        return packet(header + payload, protocol: 6, checksumAt: 16)
    }

    private func datagram(_ payload: ArraySlice<UInt8>, toServer: Bool) -> [UInt8] {
        let most = payload.prefix(65_507)
        return packet(ports(toServer) + Self.half(8 + most.count) + [0, 0] + most, protocol: 17, checksumAt: 6)
    }

    private func ports(_ toServer: Bool) -> [UInt8] {
        toServer ? Self.half(Int(clientPort)) + Self.half(Int(serverPort)) : Self.half(Int(serverPort)) + Self.half(Int(clientPort))
    }

    private func packet(_ transport: [UInt8], protocol number: UInt8, checksumAt: Int) -> [UInt8] {
        let ends: [UInt8] = [127, 0, 0, 1, 127, 0, 0, 1]
        var body = transport
        var sum = Self.sum(ends + [0, number] + Self.half(body.count) + body)
        if number == 17, sum == 0 { sum = 0xffff }
        body.replaceSubrange(checksumAt..<(checksumAt + 2), with: Self.half(Int(sum)))
        var head: [UInt8] = [0x45, 0] + Self.half(20 + body.count) + [0, 0, 0x40, 0, 64, number, 0, 0] + ends
        head.replaceSubrange(10..<12, with: Self.half(Int(Self.sum(head))))
        return head + body
    }

    private static func half(_ v: Int) -> [UInt8] { [UInt8(v >> 8 & 255), UInt8(v & 255)] }
    private static func word(_ v: UInt32) -> [UInt8] { half(Int(v >> 16)) + half(Int(v & 0xffff)) }

    private static func sum(_ bytes: [UInt8]) -> UInt16 {
        var total: UInt32 = 0
        for i in stride(from: 0, to: bytes.count, by: 2) {
            total &+= UInt32(bytes[i]) << 8 | (i + 1 < bytes.count ? UInt32(bytes[i + 1]) : 0)
        }
        while total >> 16 != 0 { total = total & 0xffff &+ total >> 16 }
        return ~UInt16(total)
    }
}

extension Engine.Outcome {
    /// Findings of both; the first verdict that is not to pass stays.
    public mutating func add(_ other: Engine.Outcome) {
        findings += other.findings
        if verdict == .pass {
            verdict = other.verdict
            decidedBy = other.decidedBy
        }
        wasCondemned = wasCondemned || other.wasCondemned
    }
}
