// Changes a packet on its way, and makes the packet that ends a connection: lengths and checksums always agree with the content.

enum PacketEditor {
    /// The packet with other bytes at places of its payload.
    static func overwritten(_ bytes: [UInt8], _ p: Packet, _ places: [(at: Int, bytes: [UInt8])]) -> [UInt8] {
        var out = bytes
        for place in places {
            for i in place.bytes.indices { out[p.payload.lowerBound + place.at + i] = place.bytes[i] }
        }
        finish(&out, p)
        return out
    }

    /// Urgent data would be taken out of what the server's program reads.
    static func withoutUrgency(_ bytes: Span<UInt8>, _ p: Packet) -> [UInt8] {
        var out = bytes.copied
        out[p.transportHeader.lowerBound + 13] &= ~Packet.urg
        put(0 as UInt16, &out, p.transportHeader.lowerBound + 18)
        finish(&out, p)
        return out
    }

    /// The first `count` bytes of the payload.
    static func cut(_ bytes: Span<UInt8>, _ p: Packet, to count: Int) -> [UInt8] {
        let end = p.payload.lowerBound + min(count, p.payload.count)
        var out = bytes.extracting(0..<end).copied
        if p.isV6 { put(UInt16(end - 40), &out, 4) } else { put(UInt16(end), &out, 2) }
        var shorter = p
        shorter.content = p.content.lowerBound..<end
        shorter.payload = p.payload.lowerBound..<end
        finish(&out, shorter)
        return out
    }

    /// The packet turned into one that ends the connection for who receives it.
    static func reset(_ bytes: Span<UInt8>, _ p: Packet, sequence: UInt32) -> [UInt8] {
        var out = cut(bytes, p, to: 0)
        let header = p.transportHeader.lowerBound
        put(sequence, &out, header + 4)
        out[header + 13] = Packet.rst | Packet.ack
        put(0 as UInt16, &out, header + 18)
        var shorter = p
        shorter.content = p.content.lowerBound..<out.count
        finish(&out, shorter)
        return out
    }

    /// What the receiver of `p` would send to its sender to end the connection.
    static func answerReset(_ p: Packet, payloadBytes: Int) -> [UInt8] {
        let length = (p.isV6 ? 40 : 20) + 20
        var out = [UInt8](repeating: 0, count: length)
        if p.isV6 {
            out[0] = 0x60
            put(UInt16(20), &out, 4)
            out[6] = 6
            out[7] = 64
            put(p.destination, &out, 8)
            put(p.source, &out, 24)
        } else {
            out[0] = 0x45
            put(UInt16(length), &out, 2)
            out[6] = 0x40
            out[8] = 64
            out[9] = 6
            put(UInt32(truncatingIfNeeded: p.destination.low), &out, 12)
            put(UInt32(truncatingIfNeeded: p.source.low), &out, 16)
        }
        let header = length - 20
        put(p.destinationPort, &out, header)
        put(p.sourcePort, &out, header + 2)
        put(p.acknowledgement, &out, header + 4)
        let ends: UInt32 = p.flags & (Packet.syn | Packet.fin) != 0 ? 1 : 0
        put(p.sequence &+ UInt32(truncatingIfNeeded: payloadBytes) &+ ends, &out, header + 8)
        out[header + 12] = 0x50
        out[header + 13] = Packet.rst | Packet.ack
        var made = Packet()
        made.isV6 = p.isV6
        made.transport = 6
        made.source = p.destination
        made.destination = p.source
        made.header = 0..<header
        made.content = header..<length
        made.transportHeader = header..<length
        finish(&out, made)
        return out
    }

    /// Checksums of the IP header and of TCP or UDP.
    private static func finish(_ out: inout [UInt8], _ p: Packet) {
        if !p.isV6 {
            put(0 as UInt16, &out, 10)
            put(Checksum.of(out.span.extracting(p.header)), &out, 10)
        }
        let field = p.content.lowerBound + (p.transport == 6 ? 16 : 6)
        put(0 as UInt16, &out, field)
        let sum = Checksum.ofTransport(p, out.span)
        // To UDP zero means that there is none.
        put(p.transport == 17 && sum == 0 ? 0xffff : sum, &out, field)
    }

    private static func put(_ value: UInt16, _ out: inout [UInt8], _ at: Int) {
        out[at] = UInt8(value >> 8)
        out[at + 1] = UInt8(value & 255)
    }
    private static func put(_ value: UInt32, _ out: inout [UInt8], _ at: Int) {
        put(UInt16(value >> 16), &out, at)
        put(UInt16(value & 0xffff), &out, at + 2)
    }
    private static func put(_ a: Address, _ out: inout [UInt8], _ at: Int) {
        for (i, word) in [a.high, a.low].enumerated() {
            put(UInt32(word >> 32), &out, at + i * 8)
            put(UInt32(truncatingIfNeeded: word), &out, at + i * 8 + 4)
        }
    }
}
