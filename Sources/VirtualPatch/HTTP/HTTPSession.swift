// One HTTP connection: turns the parser's events into messages and has the rules look at them.

import CHTP

/// `CHTP_` events by their numbers, so that a switch can name them.
enum HTTPEvent: Int {
    case requestStart = 1
    case requestLine, requestMethod, requestURI, requestPath, requestQuery, requestProtocol, requestHeaderData, requestHeader
    case requestHost, requestHeaders, requestBody, requestDone
    case responseStart, responseLine, responseStatus, responseMessage, responseProtocol, responseHeaderData, responseHeader
    case responseHeaders, responseBody, responseDone, noLineProtocol
}

/// What reading a connection takes, and what a silent one does without: handed from connection to connection.
final class HTTPReader {
    let parser: HTTPParser
    let request = HTTPMessage(isRequest: true)
    let response = HTTPMessage(isRequest: false)

    init?(_ configuration: HTTPConfiguration) {
        guard let parser = HTTPParser(configuration) else { return nil }
        self.parser = parser
    }
}

final class HTTPSession {
    private var reader: HTTPReader?
    private(set) var inspector: Inspector
    /// Rules changed during a request: who judges what follows it.
    private(set) var successor: Inspector?
    /// Where, in the bytes that were fed last, the first request begins that the successor judges.
    private(set) var stoppedAt: Int?
    unowned let flow: Flow
    private(set) var requestCount = 0
    private var responsesDone = 0
    private var responseCount = 0
    /// Nothing more of this connection can be read.
    private(set) var isLost = false
    private var asksForUpgrade = false
    private var isInRequest = false
    /// Bytes of the client that were read.
    private(set) var fedBytes = 0
    /// Where the next request begins among them.
    private var nextStart = 0
    /// The requests that the bytes fed last have a part of.
    private(set) var positions: [RequestPosition] = []

    /// Where a request stands among the client's bytes.
    struct RequestPosition: Equatable {
        var number: Int
        var start: Int
        var end: Int?
        /// Where it will end, once its head says so.
        var expectedEnd: Int?
    }

    init(_ inspector: Inspector, _ flow: Flow) {
        self.inspector = inspector
        self.flow = flow
    }

    init(_ inspector: Inspector, _ flow: Flow, after former: HTTPSession) {
        self.inspector = inspector
        self.flow = flow
        requestCount = former.requestCount
        responsesDone = requestCount
        asksForUpgrade = former.asksForUpgrade
    }

    /// Between two requests the other rules judge at once, else from the next request on.
    func retire(for fresh: Inspector) {
        let isAtRest = reader == nil && !isInRequest
        successor = isAtRest || fresh === inspector ? nil : fresh
        if isAtRest { inspector = fresh }
    }

    /// The messages that are read or come next.
    func openMessages() -> (request: HTTPMessage, response: HTTPMessage)? { attach().map { ($0.request, $0.response) } }

    /// Bytes that the engine keeps for this connection.
    var keptBytes: Int { reader.map { $0.request.keptBytes + $0.response.keptBytes } ?? 0 }

    private func attach() -> HTTPReader? {
        if let reader { return reader }
        reader = inspector.takeReader()
        if reader == nil { lose(.memoryLimit) }
        return reader
    }

    /// Between two messages nothing of the reader is this connection's own.
    private func rest() {
        if isLost { self.reader = nil }
        guard let reader, !isInRequest, !isLost, reader.parser.isAtRest, reader.request.pending.isEmpty, reader.response.pending.isEmpty,
            inspector.options.requestsOnly || responsesDone == requestCount
        else { return }
        self.reader = nil
        inspector.putBack(reader)
        flow.rest()
    }

    func feed(_ bytes: Span<UInt8>, toServer: Bool) {
        guard !isLost, bytes.count > 0 else { return }
        guard let reader = attach() else { return }
        defer { rest() }
        if toServer {
            if asksForUpgrade && !isInRequest && !Self.looksLikeRequest(bytes) { return lose(.httpUpgrade) }
            positions.removeAll { $0.end != nil }
            if !isInRequest { nextStart = fedBytes }
            settle(reader.parser.feedRequest(bytes, to: self, requestsOnly: inspector.options.requestsOnly), reader.request)
            fedBytes += bytes.count
        } else if inspector.rules.usesResponses || !inspector.options.requestsOnly {
            let outcome = reader.parser.feedResponse(bytes, to: self)
            // Replies that cannot be read leave requests readable; rules on replies learn of it.
            if outcome == .error && inspector.rules.usesResponses { inspector.uninspectable(.httpError, nil, flow, responseCount) }
        }
    }

    private func settle(_ outcome: HTTPParser.Outcome, _ request: HTTPMessage) {
        switch outcome {
        case .ok: break
        case .error: lose(request.line.isEmpty && !request.rawHeader.isEmpty ? .httpLimit : .httpError)
        case .tunnel, .other: lose(.httpTunnel)
        }
    }

    private func lose(_ reason: Uninspectable.Reason) {
        guard !isLost else { return }
        isLost = true
        // The parser may be in the middle of a call: it goes with the connection.
        inspector.uninspectable(reason, nil, flow, requestCount)
    }

    /// The sender of one direction, or both, finished.
    func close() {
        guard !isLost, let reader else { return }
        let (request, response) = (reader.request, reader.response)
        if inspector.options.requestsOnly { reader.parser.closeRequests(self) } else { reader.parser.close(self) }
        if isInRequest { inspector.bodyEnds(request, self) }
        isInRequest = false
        if !response.pending.isEmpty { inspector.bodyEnds(response, self) }
    }

    /// Servers pass over empty lines before a request, so nothing hides behind them.
    static func looksLikeRequest(_ bytes: Span<UInt8>) -> Bool {
        var start = 0
        while start < bytes.count, bytes[start] == 13 || bytes[start] == 10 { start += 1 }
        var i = start
        while i < bytes.count, i < start + 24, bytes[i] >= 65, bytes[i] <= 90 || bytes[i] == 95 || bytes[i] == 45 { i += 1 }
        return i >= start + 3 && (i == bytes.count || bytes[i] == 32)
    }

    func event(_ number: Int, _ a: Span<UInt8>, _ b: Span<UInt8>) {
        guard !isLost, stoppedAt == nil, let event = HTTPEvent(rawValue: number), let reader else { return }
        let (request, response) = (reader.request, reader.response)
        switch event {
        case .requestStart:
            if successor != nil, !isInRequest {
                stoppedAt = nextStart - fedBytes
                return
            }
            positions.append(RequestPosition(number: requestCount + 1, start: nextStart))
            request.clear()
            requestCount += 1
            request.number = requestCount
            isInRequest = true
        case .requestLine: request.line.append(a)
        case .requestMethod: request.method.append(a)
        case .requestURI: request.uri.append(a)
        case .requestPath: request.path.append(a)
        case .requestQuery: request.query.append(a)
        case .requestProtocol: request.version.append(a)
        case .requestHeaderData:
            request.rawHeader.append(a)
            // The parser knows a limit only where it must wait for more; a head that comes at once is no shorter for that.
            if request.rawHeader.count > inspector.options.headerLimitBytes { lose(.httpLimit) }
        case .requestHeader: request.add(name: a, value: b)
        case .requestHost: request.host.append(a)
        case .requestHeaders:
            if let last = positions.indices.last { positions[last].expectedEnd = reader.parser.expectedEnd.map { fedBytes + $0 } }
            headIsThere(reader)
        case .requestBody: inspector.body(a, of: request, self)
        case .requestDone:
            if request.hasHead { inspector.bodyEnds(request, self) }
            isInRequest = false
            nextStart = fedBytes + reader.parser.requestEnd
            if let last = positions.indices.last { positions[last].end = nextStart }
        case .noLineProtocol: lose(.httpWithoutVersion)
        case .responseStart:
            response.clear()
            responseCount += 1
            response.number = responseCount
        case .responseLine: response.line.append(a)
        case .responseStatus: response.status.append(a)
        case .responseMessage: response.statusMessage.append(a)
        case .responseProtocol: response.version.append(a)
        case .responseHeaderData: response.rawHeader.append(a)
        case .responseHeader: response.add(name: a, value: b)
        case .responseHeaders:
            response.settleFields()
            RequestBuffers.fillResponse(response, inspector.rules.used)
            response.hasHead = true
            inspector.head(response, self)
        case .responseBody: inspector.body(a, of: response, self)
        case .responseDone:
            responsesDone += 1
            inspector.bodyEnds(response, self)
        }
    }

    private func headIsThere(_ reader: HTTPReader) {
        let request = reader.request
        if request.method.elementsEqual("PRI".utf8) { return lose(.http2) }
        request.settleFields()
        switch inspector.options.profile {
        case .apache, .nginx: request.closeDotSegment()
        case .generic, .iis: break
        }
        request.mayHaveBody = request.header("content-length") != nil || request.header("transfer-encoding") != nil
        RequestBuffers.fill(request, inspector.rules.used, isStrict: inspector.options.isStrict)
        request.hasHead = true
        if request.buffers.hasTooMany { inspector.uninspectable(.httpLimit, nil, flow, requestCount) }
        if request.header("upgrade") != nil { asksForUpgrade = true }
        if reader.parser.hasInvalidTransferEncoding {
            inspector.event("http.invalid_transfer_encoding_value_in_request", request, self)
        }
        inspector.head(request, self)
        // The parser would wait for the answer to it.
        if request.method.elementsEqual("CONNECT".utf8) { lose(.httpTunnel) }
    }
}
