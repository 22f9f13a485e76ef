// Finds the IP packet in a frame: Ethernet with tags, Linux cooked captures, PPP, Cisco HDLC, loopback, raw.

/// Link types by their number in captures.
enum LinkLayer {
    private static let tagLimit = 8

    static func packet(_ b: Span<UInt8>, _ frame: Range<Int>, link: UInt32) -> Range<Int>? {
        let start = frame.lowerBound
        switch link {
        case 1: return frame.count >= 14 ? behind(type(b, start + 12), b, start + 14, frame, tagLimit) : nil
        case 0, 108:
            guard frame.count >= 4 else { return nil }
            return ip(b, start + 4, frame)
        case 12, 14, 101, 228, 229: return ip(b, start, frame)
        case 9, 50:
            var at = start
            if frame.count >= 2, b[at] == 0xff, b[at + 1] == 3 { at += 2 }
            guard at + 2 <= frame.upperBound else { return nil }
            return ip(b, at + 2, frame)
        case 104: return frame.count >= 4 ? behind(type(b, start + 2), b, start + 4, frame, tagLimit) : nil
        case 113: return frame.count >= 16 ? behind(type(b, start + 14), b, start + 16, frame, tagLimit) : nil
        case 276: return frame.count >= 20 ? behind(type(b, start), b, start + 20, frame, tagLimit) : nil
        default: return nil
        }
    }

    private static func type(_ b: Span<UInt8>, _ at: Int) -> Int { Int(b[at]) << 8 | Int(b[at + 1]) }

    private static func behind(_ type: Int, _ b: Span<UInt8>, _ at: Int, _ frame: Range<Int>, _ left: Int) -> Range<Int>? {
        guard left > 0, at <= frame.upperBound else { return nil }
        switch type {
        case 0x0800, 0x86dd: return ip(b, at, frame)
        case 0x8100, 0x88a8, 0x9100, 0x9200:
            guard at + 4 <= frame.upperBound else { return nil }
            return behind(self.type(b, at + 2), b, at + 4, frame, left - 1)
        case 0x8864:
            guard at + 8 <= frame.upperBound else { return nil }
            return ip(b, at + 8, frame)
        case 0x8847:
            // Labels until the last one's mark.
            guard at + 4 <= frame.upperBound else { return nil }
            return b[at + 2] & 1 == 1 ? ip(b, at + 4, frame) : behind(0x8847, b, at + 4, frame, left - 1)
        default: return nil
        }
    }

    private static func ip(_ b: Span<UInt8>, _ at: Int, _ frame: Range<Int>) -> Range<Int>? {
        guard at < frame.upperBound, b[at] >> 4 == 4 || b[at] >> 4 == 6 else { return nil }
        return at..<frame.upperBound
    }
}
