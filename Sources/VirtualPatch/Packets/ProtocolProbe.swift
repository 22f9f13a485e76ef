// Recognises what a conversation speaks from its first bytes.

enum ProtocolProbe {
    /// A packet with a long header of a version of QUIC that is in use, padded as the first one must be.
    private static func isQUIC(_ b: Span<UInt8>) -> Bool {
        guard b.count >= 1200, b[0] & 0xc0 == 0xc0 else { return false }
        let version = b.u32(1)
        return version == 1 || version == 0x6b33_43cf || version >> 8 == 0xff_0000
    }

    /// Only a server begins so: tells the ends of a connection apart whose beginning was not seen.
    static func isResponse(_ b: Span<UInt8>) -> Bool {
        LiteralSearch.stands(Array("HTTP/1.".utf8), in: b, at: 0, ignoresCase: false)
    }

    static func detect(_ b: Span<UInt8>, _ flow: Flow, toServer: Bool) -> AppProtocol? {
        let port = flow.name.serverPort
        if flow.name.transport == 17 {
            if port == 53 || flow.name.clientPort == 53 { return .dns }
            return isQUIC(b) ? .quic : nil
        }
        func begins(_ text: StaticString) -> Bool {
            let utf8 = "\(text)".utf8
            guard b.count >= utf8.count else { return false }
            var i = 0
            for c in utf8 {
                if LiteralSearch.lower(b[i]) != c { return false }
                i += 1
            }
            return true
        }
        if begins("ssh-") { return .ssh }
        if b.count >= 3, b[0] == 0x16, b[1] == 3, b[2] <= 4 { return .tls }
        if b.count >= 8, b[4] == 0xff || b[4] == 0xfe, b[5] == 0x53, b[6] == 0x4d, b[7] == 0x42 { return .smb }
        if toServer {
            if begins("ehlo") || begins("helo") || begins("mail from:") { return .smtp }
            if port == 21 && (begins("user ") || begins("auth ") || begins("feat")) { return .ftp }
            if port == 53, b.count > 14, Int(b.u16(0)) + 2 <= 65_537, b[4] & 0xf8 == 0 { return .dns }
            if port != 25, port != 21, beginsRequest(b) { return .http }
        } else {
            if begins("http/1.") { return .http }
            if begins("220") { return port == 21 ? .ftp : [25, 465, 587].contains(port) ? .smtp : nil }
        }
        return nil
    }

    /// So much of a request line settles that it is one, though its end is not there yet.
    static let lineBytes = 1000

    /// A method is no proof: other protocols have commands of capital letters too. The version is, or GET, whose old form has none.
    private static func beginsRequest(_ b: Span<UInt8>) -> Bool {
        guard HTTPSession.looksLikeRequest(b) else { return false }
        var start = 0
        while start < b.count, b[start] == 13 || b[start] == 10 { start += 1 }
        var end = start
        while end < b.count, b[end] != 10 { end += 1 }
        if end == b.count && end - start < lineBytes { return false }
        let version: [UInt8] = Array(" HTTP/".utf8), get: [UInt8] = Array("GET ".utf8)
        return LiteralSearch.find(get, in: b, from: start, to: min(end, start + 4), ignoresCase: false) != nil
            || LiteralSearch.find(version, in: b, from: start, to: end, ignoresCase: true) != nil || end == b.count
    }
}
