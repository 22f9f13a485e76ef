// Messages of protocols other than HTTP, as far as rules look into them: DNS questions, TLS server names, SSH banners, parts of mails.

/// The name buffers of one conversation.
struct MessageReader {
    static let keptLimit = 64 << 10
    let application: AppProtocol
    private var held: (client: [UInt8], server: [UInt8]) = ([], [])
    private var isDone = (client: false, server: false)
    private var mail: MailReader?

    var keptBytes: Int { held.client.count + held.server.count + (mail?.keptBytes ?? 0) }

    init(_ application: AppProtocol) { self.application = application }

    mutating func feed(_ bytes: Span<UInt8>, toServer: Bool, _ flow: Flow, _ inspector: Inspector) {
        switch application {
        case .dns: dns(bytes, toServer: toServer, flow, inspector)
        case .tls: if toServer, !isDone.client { tls(bytes, flow, inspector) }
        case .ssh: ssh(bytes, toServer: toServer, flow, inspector)
        default:
            if application == .smtp, toServer { readMail(bytes, flow, inspector) }
            guard !(toServer ? isDone.client : isDone.server) else { return }
            if toServer { isDone.client = true } else { isDone.server = true }
            inspector.message([], flow, toServer: toServer)
        }
    }

    private mutating func readMail(_ bytes: Span<UInt8>, _ flow: Flow, _ inspector: Inspector) {
        var reader = mail ?? MailReader(partLimit: inspector.options.wholeBodyBytes)
        mail = nil
        reader.feed(bytes) { event in
            switch event {
            case .part(let content): inspector.message([(.mailContent, content)], flow, toServer: true)
            case .tooLong: if inspector.rules.used.contains(.mailContent) { inspector.uninspectable(.bodyTooLong, nil, flow, nil) }
            case .encrypted: flow.startsEncryption = true
            }
        }
        mail = reader
    }

    private mutating func dns(_ bytes: Span<UInt8>, toServer: Bool, _ flow: Flow, _ inspector: Inspector) {
        func tell(_ message: Span<UInt8>) {
            let whole: [(Buffer, [UInt8])] = inspector.rules.used.contains(.dnsMessage) ? [(.dnsMessage, message.copied)] : []
            inspector.message(Self.questions(message) + whole, flow, toServer: toServer)
        }
        if flow.name.transport == 17 { return tell(bytes) }
        var all = toServer ? held.client : held.server
        all.append(bytes)
        var at = 0
        while all.count - at >= 2 {
            let length = Int(all[at]) << 8 | Int(all[at + 1])
            guard all.count - at - 2 >= length else { break }
            tell(all.span.extracting((at + 2)..<(at + 2 + length)))
            at += 2 + length
        }
        all.removeFirst(at)
        if toServer { held.client = all } else { held.server = all }
    }

    /// A name may be 255 bytes long; servers that take longer ones are what some rules are about.
    static let nameLimit = 1 << 11
    /// Pointers followed in one name.
    private static let pointerLimit = 64

    /// Names asked for, as text with dots.
    static func questions(_ b: Span<UInt8>) -> [(Buffer, [UInt8])] {
        guard b.count >= 12 else { return [] }
        var out: [(Buffer, [UInt8])] = []
        var at = 12
        for _ in 0..<min(Int(b.u16(4)), 16) {
            guard let name = name(b, &at) else { return out }
            out.append((.dnsQuery, name))
            at += 4
        }
        return out
    }

    /// The name at `at`, which moves behind it; nil when it does not end inside the message or is longer than `nameLimit`.
    private static func name(_ b: Span<UInt8>, _ at: inout Int) -> [UInt8]? {
        var name: [UInt8] = []
        var from = at, pointers = 0
        while from < b.count, b[from] != 0 {
            let length = Int(b[from])
            if length >= 0xc0 {
                guard from + 1 < b.count, pointers < pointerLimit else { return nil }
                if pointers == 0 { at = from + 2 }
                pointers += 1
                from = (length & 0x3f) << 8 | Int(b[from + 1])
                continue
            }
            guard length < 64, from + 1 + length < b.count, name.count < nameLimit else { return nil }
            if !name.isEmpty { name.append(UInt8(ascii: ".")) }
            name.append(b.extracting((from + 1)..<(from + 1 + length)))
            from += 1 + length
        }
        guard from < b.count else { return nil }
        if pointers == 0 { at = from + 1 }
        return name
    }

    private mutating func tls(_ bytes: Span<UInt8>, _ flow: Flow, _ inspector: Inspector) {
        held.client.append(bytes)
        guard held.client.count >= 5 else { return }
        let length = Int(held.client[3]) << 8 | Int(held.client[4])
        guard held.client.count >= 5 + length || held.client.count > Self.keptLimit else { return }
        isDone.client = true
        let name = Self.serverName(held.client.span)
        held.client = []
        inspector.message(name.map { [(.tlsServerName, $0)] } ?? [], flow, toServer: true)
    }

    /// The server name of a client's first handshake message.
    static func serverName(_ b: Span<UInt8>) -> [UInt8]? {
        guard b.count > 43, b[0] == 0x16, b[5] == 1 else { return nil }
        var at = 43
        func skip(_ width: Int) -> Bool {
            guard at + width <= b.count else { return false }
            let n = width == 1 ? Int(b[at]) : Int(b.u16(at))
            at += width + n
            return at <= b.count
        }
        guard skip(1), skip(2), skip(1), at + 2 <= b.count else { return nil }
        let end = min(b.count, at + 2 + Int(b.u16(at)))
        at += 2
        while at + 4 <= end {
            let kind = b.u16(at), length = Int(b.u16(at + 2))
            guard at + 4 + length <= end else { return nil }
            if kind == 0, length > 5 {
                let n = Int(b.u16(at + 7))
                return 9 + n <= 4 + length ? b.extracting((at + 9)..<(at + 9 + n)).copied : nil
            }
            at += 4 + length
        }
        return nil
    }

    private mutating func ssh(_ bytes: Span<UInt8>, toServer: Bool, _ flow: Flow, _ inspector: Inspector) {
        guard !(toServer ? isDone.client : isDone.server) else { return }
        var all = toServer ? held.client : held.server
        all.append(bytes)
        guard let end = all.firstIndex(of: 10) ?? (all.count > 255 ? 255 : nil) else {
            if toServer { held.client = all } else { held.server = all }
            return
        }
        if toServer { isDone.client = true } else { isDone.server = true }
        var line = all[..<end]
        if line.last == 13 { line.removeLast() }
        let dash = line.indices.filter { line[$0] == UInt8(ascii: "-") }
        inspector.message(dash.count >= 2 ? [(.sshSoftware, Array(line[(dash[1] + 1)...]))] : [], flow, toServer: toServer)
    }
}
