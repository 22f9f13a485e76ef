// TCP segments and IP packets as an attacker makes them: right in every field, except where the attacker wants otherwise.

import Foundation

/// TCP flags.
struct Flags: OptionSet, Hashable {
    var rawValue: UInt8
    static let fin = Flags(rawValue: 1), syn = Flags(rawValue: 2), reset = Flags(rawValue: 4), push = Flags(rawValue: 8)
    static let ack = Flags(rawValue: 16), urgent = Flags(rawValue: 32)
}

struct Segment {
    var sourcePort: UInt16 = 0
    var destinationPort: UInt16 = 80
    var sequence: UInt32 = 0
    var acknowledgement: UInt32 = 0
    var flags: Flags = [.push, .ack]
    var window: UInt16 = 64000
    var urgentPointer: UInt16 = 0
    /// Padded with end-of-list to a multiple of four bytes.
    var options: [UInt8] = []
    var bytes: [UInt8] = []
    var hasBadChecksum = false
    /// In words; nil: the true one.
    var dataOffset: UInt8?

    static func timestamps(_ value: UInt32, _ echo: UInt32) -> [UInt8] { [1, 1, 8, 10] + value.bigEndianBytes + echo.bigEndianBytes }
    /// An MD5 signature (RFC 2385) that nobody asked for.
    static let signature: [UInt8] = [19, 18] + Array(repeating: 0xab, count: 16)

    func encoded(from source: [UInt8], to destination: [UInt8]) -> [UInt8] {
        let padded = options + Array(repeating: 0, count: (4 - options.count % 4) % 4)
        var out = sourcePort.bigEndianBytes + destinationPort.bigEndianBytes + sequence.bigEndianBytes + acknowledgement.bigEndianBytes
        out += [(dataOffset ?? UInt8(5 + padded.count / 4)) << 4, flags.rawValue] + window.bigEndianBytes + [0, 0]
        out += urgentPointer.bigEndianBytes + padded + bytes
        let pseudo = source + destination + UInt32(out.count).bigEndianBytes + [0, 0, 0, 6]
        let sum = onesComplementSum(pseudo + out) ^ (hasBadChecksum ? 0x1234 : 0)
        out.replaceSubrange(16..<18, with: sum.bigEndianBytes)
        return out
    }

    /// Of one IP packet, without its padding; nil when it is no TCP.
    init?(packet: [UInt8]) {
        let isV6 = packet[0] >> 4 == 6
        let header = isV6 ? 40 : Int(packet[0] & 15) * 4
        guard packet.count >= header + 20, packet[isV6 ? 6 : 9] == 6 else { return nil }
        let length = isV6 ? 40 + Int(packet[4]) << 8 + Int(packet[5]) : Int(packet[2]) << 8 + Int(packet[3])
        let tcp = Array(packet[header..<min(max(length, header + 20), packet.count)])
        func word(_ at: Int) -> UInt16 { UInt16(tcp[at]) << 8 | UInt16(tcp[at + 1]) }
        sourcePort = word(0)
        destinationPort = word(2)
        sequence = UInt32(word(4)) << 16 | UInt32(word(6))
        acknowledgement = UInt32(word(8)) << 16 | UInt32(word(10))
        flags = Flags(rawValue: tcp[13])
        window = word(14)
        let data = min(Int(tcp[12] >> 4) * 4, tcp.count)
        options = data > 20 ? Array(tcp[20..<data]) : []
        bytes = Array(tcp[data...])
    }

    init() {}

    /// The sender's timestamp, where it has one.
    var timestamp: UInt32? {
        var at = 0
        while at < options.count {
            if options[at] == 1 {
                at += 1
                continue
            }
            guard options[at] != 0, at + 1 < options.count, options[at + 1] >= 2 else { return nil }
            if options[at] == 8, at + 6 <= options.count { return options[(at + 2)..<(at + 6)].reduce(0) { $0 << 8 | UInt32($1) } }
            at += Int(options[at + 1])
        }
        return nil
    }
}

/// How an IP packet carries its content.
struct Carrier {
    var hops: UInt8 = 64
    /// IPv4 options, a multiple of four bytes; IPv6: extension headers with next-header fields of zero.
    var extras: [UInt8] = []
    /// What the first extension header is: 0 hop-by-hop, 60 destination options.
    var firstExtra: UInt8 = 60

    func packet(from source: [UInt8], to destination: [UInt8], _ content: [UInt8], transport: UInt8 = 6) -> [UInt8] {
        if source.count == 16 {
            var extra = extras
            if !extra.isEmpty { extra[0] = transport }
            let head: [UInt8] =
                [0x60, 0, 0, 0] + UInt16(extra.count + content.count).bigEndianBytes + [extra.isEmpty ? transport : firstExtra, hops]
            return head + source + destination + extra + content
        }
        return Self.header4(from: source, to: destination, content.count, hops: hops, options: extras, transport: transport) + content
    }

    private static func header4(
        from source: [UInt8], to destination: [UInt8], _ count: Int, hops: UInt8, options: [UInt8] = [], transport: UInt8,
        identification: UInt16 = 1, fragment: UInt16 = 0x4000
    ) -> [UInt8] {
        let length = 20 + options.count
        var head: [UInt8] = [0x40 | UInt8(length / 4), 0] + UInt16(length + count).bigEndianBytes + identification.bigEndianBytes
        head += fragment.bigEndianBytes + [hops, transport, 0, 0] + source + destination + options
        head.replaceSubrange(10..<12, with: onesComplementSum(head).bigEndianBytes)
        return head
    }

    /// One fragment; `offset` in bytes, a multiple of eight.
    func fragment(
        from source: [UInt8], to destination: [UInt8], _ content: [UInt8], at offset: Int, isLast: Bool, identification: UInt16,
        transport: UInt8 = 6
    ) -> [UInt8] {
        if source.count == 16 {
            let word = UInt16(offset) | (isLast ? 0 : 1)
            let extension6: [UInt8] = [transport, 0] + word.bigEndianBytes + [0, 0] + identification.bigEndianBytes
            return [0x60, 0, 0, 0] + UInt16(8 + content.count).bigEndianBytes + [44, hops] + source + destination + extension6 + content
        }
        return Self.header4(
            from: source, to: destination, content.count, hops: hops, transport: transport, identification: identification,
            fragment: UInt16(offset / 8) | (isLast ? 0 : 0x2000)) + content
    }
}

func onesComplementSum(_ bytes: [UInt8]) -> UInt16 {
    var sum: UInt64 = 0
    for (i, byte) in bytes.enumerated() { sum += i % 2 == 0 ? UInt64(byte) << 8 : UInt64(byte) }
    while sum > 0xffff { sum = sum >> 16 + sum & 0xffff }
    return ~UInt16(sum)
}

extension FixedWidthInteger {
    var bigEndianBytes: [UInt8] { (0..<(Self.bitWidth / 8)).reversed().map { UInt8(truncatingIfNeeded: self >> Self($0 * 8)) } }
}

/// An address in its bytes; `text` is one of those that these networks use.
func addressBytes(_ text: String) -> [UInt8] {
    guard text.contains(":") else { return text.split(separator: ".").compactMap { UInt8($0) } }
    let sides = text.components(separatedBy: "::").map { side in
        side.split(separator: ":").compactMap { UInt16($0, radix: 16) }.flatMap { $0.bigEndianBytes }
    }
    return sides[0] + Array(repeating: 0, count: 16 - sides[0].count - sides[1].count) + sides[1]
}
