// An attacker who speaks TCP by hand, past every kernel's, from an address of its own on the first link.

import ELF
import Foundation
import ProcessControl

/// The way in: whole packets go to the first hop, and every packet for the attacker comes back.
final class Attacker {
    private let door: ChildProcess
    private var syncs = 0
    private var nextPort: UInt16 = 20_000
    private var nextIdentification: UInt16 = 100

    init(_ network: Network) throws {
        door = try network.client.talk([
            try NetworkPrograms.get().path("door"), "far", Network.firstHop, Network.attacker, Network.attacker6,
        ])
        guard try door.readLine() == "ready" else { throw Failure("network", "the door did not open.") }
    }

    func send(_ packet: [UInt8]) throws { try door.write(hex(packet) + "\n") }

    /// What comes until nothing came for `quiet`.
    func receive(quiet: Duration) throws -> [[UInt8]] {
        syncs += 1
        try door.write("sync \(syncs)\n")
        var all: [[UInt8]] = [], isSent = false
        while true {
            let line: String?
            do { line = try door.readLine(timeout: isSent ? quiet : .seconds(10)) } catch {
                guard error.code == "tool-timed-out" else { throw error }
                return all
            }
            guard let line else { throw Failure("network", "the door closed.") }
            if line == "sync \(syncs)" { isSent = true } else if !line.hasPrefix("sync") { all.append(unhex(line)) }
        }
    }

    func port() -> UInt16 {
        nextPort += 1
        return nextPort
    }
    func identification() -> UInt16 {
        nextIdentification += 1
        return nextIdentification
    }
}

/// One connection of the attacker's. Offsets count the bytes of its stream from 0.
final class Attack {
    let attacker: Attacker
    let source: [UInt8]
    let destination: [UInt8]
    let port: UInt16
    let serverPort: UInt16
    /// The initial sequence number.
    var start: UInt32
    /// The next byte expected of the server.
    var acknowledgement: UInt32 = 0
    var carrier = Carrier()
    /// The clock of the timestamps option, nil without it.
    var clock: UInt32?
    private var echo: UInt32 = 0
    /// What the server has acknowledged of the stream.
    private(set) var acknowledged = 0
    private(set) var wasReset = false
    private(set) var wasClosed = false
    private(set) var answer: [UInt8] = []

    init(_ attacker: Attacker, to address: String, port serverPort: Int = 80, from port: UInt16? = nil, start: UInt32 = 1_000_000) {
        self.attacker = attacker
        destination = addressBytes(address)
        source = addressBytes(destination.count == 16 ? Network.attacker6 : Network.attacker)
        self.port = port ?? attacker.port()
        self.serverPort = UInt16(serverPort)
        self.start = start
    }

    /// Another connection between the same ports.
    init(after other: Attack) {
        (attacker, source, destination, port, serverPort) = (other.attacker, other.source, other.destination, other.port, other.serverPort)
        start = other.start &+ 5_000_000
    }

    var options: [UInt8] { clock.map { Segment.timestamps($0, echo) } ?? [] }

    /// A segment that is right in every field.
    func segment(_ offset: Int, _ bytes: [UInt8], _ flags: Flags = [.push, .ack]) -> Segment {
        var out = Segment()
        out.sourcePort = port
        out.destinationPort = serverPort
        out.sequence = start &+ 1 &+ UInt32(truncatingIfNeeded: offset)
        out.acknowledgement = flags.contains(.ack) ? acknowledgement : 0
        out.flags = flags
        out.options = options
        out.bytes = bytes
        return out
    }

    func send(_ segment: Segment) throws {
        try attacker.send(carrier.packet(from: source, to: destination, segment.encoded(from: source, to: destination)))
    }

    /// A right segment, with one thing about it changed.
    func send(_ offset: Int, _ bytes: some Sequence<UInt8>, _ flags: Flags = [.push, .ack], _ change: (inout Segment) -> Void = { _ in })
        throws
    {
        var out = segment(offset, Array(bytes), flags)
        change(&out)
        try send(out)
    }

    /// The same in fragments: (content range, last) each, as given. `other` replaces the content of those it names.
    func sendFragments(_ offset: Int, _ bytes: [UInt8], _ pieces: [(at: Int, content: [UInt8], isLast: Bool)]? = nil, size: Int = 16) throws
    {
        let whole = segment(offset, bytes).encoded(from: source, to: destination)
        let identification = attacker.identification()
        let parts =
            pieces
            ?? stride(from: 0, to: whole.count, by: size).map {
                (at: $0, content: Array(whole[$0..<min($0 + size, whole.count)]), isLast: $0 + size >= whole.count)
            }
        for part in parts {
            try attacker.send(
                carrier.fragment(
                    from: source, to: destination, part.content, at: part.at, isLast: part.isLast, identification: identification))
        }
    }

    func sendSYN(_ bytes: [UInt8] = [], options more: [UInt8] = []) throws {
        var syn = segment(-1, bytes, .syn)
        syn.options = [2, 4, 0x05, 0xb4] + more + options
        try send(syn)
    }

    /// The three-way handshake, whose last segment carries `bytes`.
    func connect(_ bytes: [UInt8] = [], inSYN: [UInt8] = [], options more: [UInt8] = []) throws {
        // The first may be lost while routers look for each other.
        for i in 0..<40 where acknowledgement == 0 {
            if i % 8 == 0 { try sendSYN(inSYN, options: more) }
            try listen(.milliseconds(25))
        }
        guard acknowledgement != 0 else { throw Failure("network", "the server did not answer the attacker's SYN.") }
        try send(0, bytes, bytes.isEmpty ? .ack : [.push, .ack])
        try listen(.milliseconds(2))
    }

    /// Takes what comes until it is quiet, and acknowledges it.
    func listen(_ quiet: Duration = .milliseconds(10)) throws {
        var mustAcknowledge = false
        for packet in try attacker.receive(quiet: quiet) {
            guard let got = Segment(packet: packet), got.destinationPort == port, got.sourcePort == serverPort else { continue }
            if let time = got.timestamp { echo = time }
            if got.flags.contains(.reset) {
                wasReset = true
                continue
            }
            if got.flags.contains(.syn) {
                acknowledgement = got.sequence &+ 1
                continue
            }
            acknowledged = max(acknowledged, Int(Int32(truncatingIfNeeded: got.acknowledgement &- start &- 1)))
            if got.sequence == acknowledgement {
                answer += got.bytes
                acknowledgement = acknowledgement &+ UInt32(got.bytes.count)
                if got.flags.contains(.fin) {
                    acknowledgement = acknowledgement &+ 1
                    wasClosed = true
                }
            }
            if !got.bytes.isEmpty || got.flags.contains(.fin) { mustAcknowledge = true }
        }
        if mustAcknowledge { try send(acknowledged, [], .ack) }
    }

    /// What a stubborn sender does: whatever the server has not acknowledged of the stream is sent again, three times.
    func insist(on stream: [UInt8]) throws {
        for _ in 0..<3 {
            try listen()
            guard !wasReset, acknowledged < stream.count else { return }
            try send(max(acknowledged, 0), stream[max(acknowledged, 0)...])
        }
        try listen()
    }
}
