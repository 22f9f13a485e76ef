// The named parts of traffic that a rule can look into: sticky buffers of the Suricata language, zones of CrowdSec's rules.

/// One part of a packet, a stream or a request. The raw value indexes tables.
public enum Buffer: UInt8, CaseIterable, Sendable, Hashable {
    /// Bytes of the packet or of the stream, as sent.
    case payload
    case httpURI, httpURIRaw, httpMethod, httpRequestLine, httpProtocol, httpHeader, httpHeaderRaw, httpHeaderNames, httpStart
    case httpCookie, httpUserAgent, httpHost, httpHostRaw, httpReferer, httpContentType, httpContentLength, httpConnection
    case httpAccept, httpAcceptLanguage, httpAcceptEncoding, httpRequestHeader, httpRequestBody
    case httpResponseLine, httpStatusCode, httpStatusMessage, httpServer, httpLocation, httpResponseHeader, httpResponseBody
    case responseProtocol, responseHeader, responseHeaderRaw, responseHeaderNames, responseStart, responseCookie
    case responseContentType, responseContentLength, responseConnection
    /// Content that a protocol carries: bodies of responses, mails, files.
    case fileData
    /// The content of one part of a mail, decoded.
    case mailContent
    case dnsQuery, dnsMessage, tlsServerName, sshSoftware
    case ipHeader, tcpHeader, udpHeader, icmpHeader
    /// Zones of CrowdSec's rules. `Argument` buffers have one instance a parameter.
    case zonePath, zoneURI, zoneArguments, zoneArgumentNames, zoneBodyArguments, zoneBodyArgumentNames
    case zoneFileNames, zoneHeaders, zoneHeaderNames, zoneCookies, zoneMethod, zoneProtocol, zoneBody

    public static let count = Buffer.allCases.count

    /// The name that rules and reports use.
    public var name: String {
        switch self {
        case .payload: "payload"
        case .httpURI: "http.uri"
        case .httpURIRaw: "http.uri.raw"
        case .httpMethod: "http.method"
        case .httpRequestLine: "http.request_line"
        case .httpProtocol, .responseProtocol: "http.protocol"
        case .httpHeader, .responseHeader: "http.header"
        case .httpHeaderRaw, .responseHeaderRaw: "http.header.raw"
        case .httpHeaderNames, .responseHeaderNames: "http.header_names"
        case .httpStart, .responseStart: "http.start"
        case .httpCookie, .responseCookie: "http.cookie"
        case .httpUserAgent: "http.user_agent"
        case .httpHost: "http.host"
        case .httpHostRaw: "http.host.raw"
        case .httpReferer: "http.referer"
        case .httpContentType, .responseContentType: "http.content_type"
        case .httpContentLength, .responseContentLength: "http.content_len"
        case .httpConnection, .responseConnection: "http.connection"
        case .httpAccept: "http.accept"
        case .httpAcceptLanguage: "http.accept_lang"
        case .httpAcceptEncoding: "http.accept_enc"
        case .httpRequestHeader: "http.request_header"
        case .httpRequestBody: "http.request_body"
        case .httpResponseLine: "http.response_line"
        case .httpStatusCode: "http.stat_code"
        case .httpStatusMessage: "http.stat_msg"
        case .httpServer: "http.server"
        case .httpLocation: "http.location"
        case .httpResponseHeader: "http.response_header"
        case .httpResponseBody: "http.response_body"
        case .fileData, .mailContent: "file.data"
        case .dnsQuery: "dns.query"
        case .dnsMessage: "frame:dns.pdu"
        case .tlsServerName: "tls.sni"
        case .sshSoftware: "ssh.software"
        case .ipHeader: "ipv4.hdr"
        case .tcpHeader: "tcp.hdr"
        case .udpHeader: "udp.hdr"
        case .icmpHeader: "icmpv4.hdr"
        case .zonePath: "URI"
        case .zoneURI: "URI_FULL"
        case .zoneArguments: "ARGS"
        case .zoneArgumentNames: "ARGS_NAMES"
        case .zoneBodyArguments: "BODY_ARGS"
        case .zoneBodyArgumentNames: "BODY_ARGS_NAMES"
        case .zoneFileNames: "FILENAMES"
        case .zoneHeaders: "HEADERS"
        case .zoneHeaderNames: "HEADERS_NAMES"
        case .zoneCookies: "COOKIES"
        case .zoneMethod: "METHOD"
        case .zoneProtocol: "PROTOCOL"
        case .zoneBody: "RAW_BODY"
        }
    }

    /// Whether the buffer has one instance per header, parameter or query.
    public var hasInstances: Bool {
        switch self {
        case .httpRequestHeader, .httpResponseHeader, .dnsQuery, .zoneArguments, .zoneArgumentNames, .zoneBodyArguments,
            .zoneBodyArgumentNames, .zoneFileNames, .zoneHeaders, .zoneHeaderNames, .zoneCookies:
            true
        default: false
        }
    }

    /// Whether the buffer can be longer than the engine keeps, so that rules on it need a streaming class.
    public var isUnbounded: Bool {
        switch self {
        case .payload, .httpRequestBody, .httpResponseBody, .fileData, .zoneBody, .zoneBodyArguments, .zoneBodyArgumentNames,
            .zoneFileNames:
            true
        default: false
        }
    }

    /// Which moment of a flow fills the buffer.
    public var moment: Moment {
        switch self {
        case .payload, .ipHeader, .tcpHeader, .udpHeader, .icmpHeader: .packet
        case .httpRequestBody, .zoneBody, .zoneBodyArguments, .zoneBodyArgumentNames, .zoneFileNames: .requestBody
        case .httpResponseLine, .httpStatusCode, .httpStatusMessage, .httpServer, .httpLocation, .httpResponseHeader,
            .responseProtocol, .responseHeader, .responseHeaderRaw, .responseHeaderNames, .responseStart, .responseCookie,
            .responseContentType, .responseContentLength, .responseConnection:
            .responseHead
        case .httpResponseBody, .fileData: .responseBody
        case .dnsQuery, .dnsMessage, .tlsServerName, .sshSoftware, .mailContent: .message
        default: .requestHead
        }
    }

    /// Whether both are looked at at one moment: bytes as sent go with packets and with messages of HTTP.
    func isSeen(with other: Buffer) -> Bool {
        enum Occasion { case packet, payload, request, response, message }
        func occasion(_ b: Buffer) -> Occasion {
            switch b.moment {
            case .packet: b == .payload ? .payload : .packet
            case .requestHead, .requestBody: .request
            case .responseHead, .responseBody: .response
            case .message: .message
            }
        }
        let (a, b) = (occasion(self), occasion(other))
        if a == b { return true }
        if a == .payload || b == .payload { return a != .message && b != .message }
        return false
    }

    /// What a keyword of the Suricata language names, in a rule that looks at requests or at responses.
    static func keyword(_ word: String, toClient: Bool) -> Buffer? {
        if toClient, let buffer = responses[word] { return buffer }
        return sticky[word]
    }

    /// For tools: every name with its buffers.
    static let sticky: [String: Buffer] = [
        "http.uri": .httpURI, "http_uri": .httpURI, "http.uri.raw": .httpURIRaw, "http_raw_uri": .httpURIRaw,
        "http.method": .httpMethod, "http_method": .httpMethod, "http.request_line": .httpRequestLine,
        "http_request_line": .httpRequestLine, "http.protocol": .httpProtocol, "http_protocol": .httpProtocol,
        "http.header": .httpHeader, "http_header": .httpHeader, "http.header.raw": .httpHeaderRaw,
        "http_raw_header": .httpHeaderRaw, "http.header_names": .httpHeaderNames, "http_header_names": .httpHeaderNames,
        "http.start": .httpStart, "http_start": .httpStart, "http.cookie": .httpCookie, "http_cookie": .httpCookie,
        "http.user_agent": .httpUserAgent, "http_user_agent": .httpUserAgent, "http.host": .httpHost, "http_host": .httpHost,
        "http.host.raw": .httpHostRaw, "http_raw_host": .httpHostRaw, "http.referer": .httpReferer, "http_referer": .httpReferer,
        "http.content_type": .httpContentType, "http_content_type": .httpContentType, "http.content_len": .httpContentLength,
        "http_content_len": .httpContentLength, "http.connection": .httpConnection, "http_connection": .httpConnection,
        "http.accept": .httpAccept, "http_accept": .httpAccept, "http.accept_lang": .httpAcceptLanguage,
        "http_accept_lang": .httpAcceptLanguage, "http.accept_enc": .httpAcceptEncoding, "http_accept_enc": .httpAcceptEncoding,
        "http.request_header": .httpRequestHeader, "http_request_header": .httpRequestHeader,
        "http.request_body": .httpRequestBody, "http_client_body": .httpRequestBody,
        "http.response_line": .httpResponseLine, "http_response_line": .httpResponseLine, "http.stat_code": .httpStatusCode,
        "http_stat_code": .httpStatusCode, "http.stat_msg": .httpStatusMessage, "http_stat_msg": .httpStatusMessage,
        "http.server": .httpServer, "http.location": .httpLocation, "http.response_header": .httpResponseHeader,
        "http_response_header": .httpResponseHeader, "http.response_body": .httpResponseBody,
        "http_server_body": .httpResponseBody, "file.data": .fileData, "file_data": .fileData, "dns.query": .dnsQuery,
        "dns_query": .dnsQuery, "tls.sni": .tlsServerName, "tls_sni": .tlsServerName, "ssh.software": .sshSoftware,
        "ipv4.hdr": .ipHeader, "tcp.hdr": .tcpHeader, "udp.hdr": .udpHeader, "icmpv4.hdr": .icmpHeader,
    ]

    private static let responses: [String: Buffer] = [
        "http.protocol": .responseProtocol, "http_protocol": .responseProtocol, "http.header": .responseHeader,
        "http_header": .responseHeader, "http.header.raw": .responseHeaderRaw, "http_raw_header": .responseHeaderRaw,
        "http.header_names": .responseHeaderNames, "http_header_names": .responseHeaderNames, "http.start": .responseStart,
        "http_start": .responseStart, "http.cookie": .responseCookie, "http_cookie": .responseCookie,
        "http.content_type": .responseContentType, "http_content_type": .responseContentType,
        "http.content_len": .responseContentLength, "http_content_len": .responseContentLength,
        "http.connection": .responseConnection, "http_connection": .responseConnection,
    ]

    /// Zones of CrowdSec's rules.
    static let zones: [String: Buffer] = [
        "URI": .zonePath, "URI_FULL": .zoneURI, "ARGS": .zoneArguments, "ARGS_NAMES": .zoneArgumentNames,
        "BODY_ARGS": .zoneBodyArguments, "BODY_ARGS_NAMES": .zoneBodyArgumentNames, "FILENAMES": .zoneFileNames,
        "HEADERS": .zoneHeaders, "HEADERS_NAMES": .zoneHeaderNames, "COOKIES": .zoneCookies, "METHOD": .zoneMethod,
        "PROTOCOL": .zoneProtocol, "RAW_BODY": .zoneBody,
    ]

    /// The buffer of the other direction that the same keyword names: for rules that do not say a direction.
    var counterpart: Buffer? {
        switch self {
        case .httpProtocol: .responseProtocol
        case .httpHeader: .responseHeader
        case .httpHeaderRaw: .responseHeaderRaw
        case .httpHeaderNames: .responseHeaderNames
        case .httpStart: .responseStart
        case .httpCookie: .responseCookie
        case .httpContentType: .responseContentType
        case .httpContentLength: .responseContentLength
        case .httpConnection: .responseConnection
        default: nil
        }
    }
}

/// When a buffer's bytes are there; later moments come later in a flow's life.
public enum Moment: UInt8, Sendable, Comparable, CaseIterable {
    case packet, requestHead, requestBody, responseHead, responseBody, message

    public static func < (a: Moment, b: Moment) -> Bool { a.rawValue < b.rawValue }
}

/// Which buffers: asked for several times a request, so one bit each.
struct BufferSet: Sendable {
    private var bits: (UInt64, UInt64) = (0, 0)

    func contains(_ b: Buffer) -> Bool {
        let n = UInt64(b.rawValue)
        return (n < 64 ? bits.0 >> n : bits.1 >> (n - 64)) & 1 != 0
    }
    mutating func insert(_ b: Buffer) {
        let n = UInt64(b.rawValue)
        if n < 64 { bits.0 |= 1 << n } else { bits.1 |= 1 << (n - 64) }
    }
    func contains(where holds: (Buffer) -> Bool) -> Bool { Buffer.allCases.contains { contains($0) && holds($0) } }
}

/// One value a moment, found without hashing.
struct ByMoment<Value: Sendable>: Sendable {
    private var items: [Value?] = Array(repeating: nil, count: Moment.allCases.count)

    subscript(moment: Moment) -> Value? {
        get { items[Int(moment.rawValue)] }
        set { items[Int(moment.rawValue)] = newValue }
    }
    subscript(moment: Moment, default first: @autoclosure () -> Value) -> Value {
        get { items[Int(moment.rawValue)] ?? first() }
        _modify {
            var value = items[Int(moment.rawValue)] ?? first()
            items[Int(moment.rawValue)] = nil
            defer { items[Int(moment.rawValue)] = value }
            yield &value
        }
    }
    var values: [Value] { items.compactMap(\.self) }
}
