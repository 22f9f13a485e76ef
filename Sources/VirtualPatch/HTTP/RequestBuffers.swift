// Fills the named buffers of a message's head: what the rule language specifies, and for requests the decoded views.

enum RequestBuffers {
    private static let crlf: [UInt8] = [13, 10]

    static func fill(_ m: HTTPMessage, _ used: BufferSet, isStrict: Bool) {
        m.contentType = m.header("content-type").map(m.buffers.copy)
        uris(m, isStrict)
        m.buffers.set(.httpMethod, m.method)
        m.buffers[.zoneMethod, 0] = m.buffers[.httpMethod, 0]
        if !m.version.isEmpty {
            m.buffers.set(.httpProtocol, m.version)
            m.buffers[.zoneProtocol, 0] = m.buffers[.httpProtocol, 0]
        }
        if used.contains(.httpRequestLine) { m.buffers.set(.httpRequestLine, m.line) }
        if used.contains(.httpStart) { m.buffers.set(.httpStart, m.line + crlf + m.rawHeader) }
        if used.contains(.httpHeaderRaw) { m.buffers.set(.httpHeaderRaw, m.rawHeader) }
        if used.contains(.httpHeader) { m.buffers[.httpHeader, 0] = m.fieldBlock }
        if used.contains(.httpHeaderNames) { m.buffers.set(.httpHeaderNames, names(m)) }
        if !m.host.isEmpty { m.buffers.set(.httpHost, m.host.map(LiteralSearch.lower)) }
        copy(m, "host", .httpHostRaw)
        copy(m, "cookie", .httpCookie)
        copy(m, "user-agent", .httpUserAgent)
        copy(m, "referer", .httpReferer)
        copy(m, "content-type", .httpContentType)
        copy(m, "content-length", .httpContentLength)
        copy(m, "connection", .httpConnection)
        copy(m, "accept", .httpAccept)
        copy(m, "accept-language", .httpAcceptLanguage)
        copy(m, "accept-encoding", .httpAcceptEncoding)
        headers(m, used, lines: .httpRequestHeader, values: .zoneHeaders, names: .zoneHeaderNames)
        if used.contains(.zoneCookies) { cookies(m) }
    }

    static func fillResponse(_ m: HTTPMessage, _ used: BufferSet) {
        m.contentType = m.header("content-type").map(m.buffers.copy)
        m.buffers.set(.httpResponseLine, m.line)
        m.buffers.set(.httpStatusCode, m.status)
        m.buffers.set(.httpStatusMessage, m.statusMessage)
        m.buffers.set(.responseProtocol, m.version)
        if used.contains(.responseStart) { m.buffers.set(.responseStart, m.line + crlf + m.rawHeader) }
        if used.contains(.responseHeaderRaw) { m.buffers.set(.responseHeaderRaw, m.rawHeader) }
        if used.contains(.responseHeader) { m.buffers[.responseHeader, 0] = m.fieldBlock }
        if used.contains(.responseHeaderNames) { m.buffers.set(.responseHeaderNames, names(m)) }
        copy(m, "set-cookie", .responseCookie)
        copy(m, "server", .httpServer)
        copy(m, "location", .httpLocation)
        copy(m, "content-type", .responseContentType)
        copy(m, "content-length", .responseContentLength)
        copy(m, "connection", .responseConnection)
        headers(m, used, lines: .httpResponseHeader, values: nil, names: nil)
    }

    private static func copy(_ m: HTTPMessage, _ name: StaticString, _ buffer: Buffer) {
        if let value = m.header(name) { m.buffers[buffer, 0] = value }
    }

    private static func names(_ m: HTTPMessage) -> [UInt8] {
        var out = crlf
        let bytes = m.buffers.bytes
        for field in m.fields {
            out += bytes[field.name]
            out += crlf
        }
        out += crlf
        return out
    }

    private static func headers(_ m: HTTPMessage, _ used: BufferSet, lines: Buffer, values: Buffer?, names: Buffer?) {
        let wantsLines = used.contains(lines), wantsValues = values.map(used.contains) ?? false
        let wantsNames = names.map(used.contains) ?? false
        guard wantsLines || wantsValues || wantsNames else { return }
        for field in m.fields {
            if wantsLines { m.buffers.add(lines, name: field.name, value: field.name.lowerBound..<field.value.upperBound) }
            if let values, wantsValues { m.buffers.add(values, name: field.name, value: field.value) }
            if let names, wantsNames { m.buffers.add(names, name: field.name, value: field.name) }
        }
    }

    private static func cookies(_ m: HTTPMessage) {
        guard let value = m.header("cookie").map(m.buffers.copy) else { return }
        for part in value.split(separator: UInt8(ascii: ";")) {
            cookie(part, m)
            // A second header of the name is joined to the first by a comma: what is behind it is a cookie of its own.
            guard part.contains(UInt8(ascii: ",")) else { continue }
            let pieces = part.split(separator: UInt8(ascii: ","))
            for (i, piece) in pieces.enumerated() where i == 0 || piece.contains(UInt8(ascii: "=")) { cookie(piece, m) }
        }
    }

    private static func cookie(_ part: ArraySlice<UInt8>, _ m: HTTPMessage) {
        var p = part
        while let c = p.first, Transforms.isSpace(c) { p.removeFirst() }
        let equals = p.firstIndex(of: UInt8(ascii: "=")) ?? p.endIndex
        let name = m.buffers.append(Array(p[..<equals]).span)
        let rest = equals < p.endIndex ? Array(p[(equals + 1)...]) : []
        let content = m.buffers.append(rest.span)
        m.buffers.add(.zoneCookies, name: name, value: content)
    }

    // MARK: addresses of requests, on three views

    private static func uris(_ m: HTTPMessage, _ isStrict: Bool) {
        let question: [UInt8] = [UInt8(ascii: "?")]
        let hasQuery = m.uri.contains(UInt8(ascii: "?"))
        m.buffers.set(.httpURIRaw, m.uri)
        m.buffers[.zoneURI, 0] = m.buffers[.httpURIRaw, 0]
        if !Transforms.isEncoded(m.uri.span, plusIsSpace: true), isPlain(m) {
            m.buffers[.httpURI, 0] = m.buffers[.httpURIRaw, 0]
            let start = m.buffers[.httpURIRaw, 0]?.lowerBound ?? 0
            m.buffers[.zonePath, 0] = start..<start + m.path.count
            return arguments(m, 0, decodedAgain: false)
        }
        let query = Transforms.percentDecoded(m.query.span, plusIsSpace: false)
        let normal = m.path + (hasQuery ? question + query : [])
        if normal == m.uri { m.buffers[.httpURI, 0] = m.buffers[.httpURIRaw, 0] } else { m.buffers.set(.httpURI, normal) }
        let rawPath = Self.rawPath(m.uri)
        let whole = m.buffers[.httpURIRaw, 0] ?? 0..<0
        m.buffers[.zonePath, 0] = whole.lowerBound + rawPath.lowerBound..<whole.lowerBound + rawPath.upperBound
        let isEncoded = Transforms.isEncoded(m.uri.span, plusIsSpace: true)
        arguments(m, 0, decodedAgain: false)
        guard !isStrict else { return }
        if !m.path.elementsEqual(m.uri[rawPath]) {
            m.buffers.set(.zonePath, view: 1, m.path)
            m.buffers.viewCount = 2
        }
        guard isEncoded else { return }
        let spaced = query.contains(UInt8(ascii: "+")) || m.query.contains(UInt8(ascii: "+"))
        let first = spaced ? m.path + question + Transforms.percentDecoded(m.query.span, plusIsSpace: true) : normal
        if spaced { m.buffers.set(.httpURI, view: 1, first) }
        m.buffers.set(.zoneURI, view: 1, Transforms.percentDecoded(m.uri.span, plusIsSpace: true))
        m.buffers.viewCount = 2
        guard Transforms.isEncoded(first.span, plusIsSpace: false) else { return }
        let second = Transforms.percentDecoded(first.span, plusIsSpace: true)
        m.buffers.set(.httpURI, view: 2, second)
        m.buffers.set(.zoneURI, view: 2, second)
        m.buffers.set(.zonePath, view: 2, Transforms.percentDecoded(m.path.span, plusIsSpace: false))
        arguments(m, 2, decodedAgain: true)
        m.buffers.viewCount = 3
        // For the prefilter: a rule may decode once more what it is given.
        m.buffers.append(Transforms.percentDecoded(second.span, plusIsSpace: true).span)
    }

    /// Path and query are the address as it was sent.
    private static func isPlain(_ m: HTTPMessage) -> Bool {
        let rest = m.uri.count - m.path.count
        guard rest == 0 || rest == m.query.count + 1 && m.uri[m.path.count] == UInt8(ascii: "?") else { return false }
        return m.uri.starts(with: m.path)
    }

    static func rawPath(_ uri: [UInt8]) -> Range<Int> {
        var start = 0
        if let colon = uri.firstIndex(of: UInt8(ascii: ":")), colon + 2 < uri.count, uri[colon + 1] == 47, uri[colon + 2] == 47,
            uri[..<colon].allSatisfy({ $0 | 32 >= 97 && $0 | 32 <= 122 })
        {
            start = uri[(colon + 3)...].firstIndex(of: 47) ?? uri.count
        }
        let end = uri[start...].firstIndex { $0 == UInt8(ascii: "?") || $0 == UInt8(ascii: "#") } ?? uri.count
        return start..<end
    }

    private static func arguments(_ m: HTTPMessage, _ view: Int, decodedAgain: Bool) {
        guard !m.query.isEmpty else { return }
        let parsed = Arguments.form(m.query.span)
        if parsed.isOverLimit { m.buffers.overflow() }
        for item in parsed.items {
            var name = item.name, value = item.value
            if decodedAgain {
                name = Transforms.percentDecoded(name.span, plusIsSpace: true)
                value = Transforms.percentDecoded(value.span, plusIsSpace: true)
            }
            let n = m.buffers.append(name.span)
            let v = m.buffers.append(value.span)
            m.buffers.add(.zoneArguments, view: view, name: n, value: v)
            m.buffers.add(.zoneArgumentNames, view: view, name: n, value: n)
        }
    }
}
