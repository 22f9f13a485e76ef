// Makes, from a rule on HTTP, a request that fires it, and the same request with one of its literals broken.

import VirtualPatch

/// One way to make a request; several are tried, for what a server normalises depends on where it stands.
struct RequestPlan: CaseIterable {
    enum Address: CaseIterable { case asIs, behindSlash, inQuery, inValue }
    var address: Address
    var expressionsFirst: Bool
    var choice: Int

    static var allCases: [RequestPlan] {
        [0, 1, 2].flatMap { choice in
            [false, true].flatMap { first in Address.allCases.map { RequestPlan(address: $0, expressionsFirst: first, choice: choice) } }
        }
    }
}

/// What one connection carries.
struct Exchange {
    var request: [UInt8]
    var response: [UInt8] = []
}

struct RequestMaker {
    private let rule: Rule
    private let plan: RequestPlan
    /// A literal that is replaced wherever it was made.
    private let broken: [UInt8]?

    private var parts: [Buffer: BufferMaker] = [:]
    private var arguments: [(name: [UInt8], value: [UInt8])] = []
    private var bodyArguments: [(name: [UInt8], value: [UInt8])] = []
    private var fileNames: [[UInt8]] = []
    private var fields: [(name: [UInt8], value: [UInt8])] = []
    private var cookies: [[UInt8]] = []

    /// nil where the rule asks for something that cannot be made.
    static func exchange(_ rule: Rule, _ plan: RequestPlan, broken: [UInt8]? = nil, choose: Int = 0) -> Exchange? {
        var maker = RequestMaker(rule: rule, plan: plan, broken: broken)
        guard maker.add(rule.condition, choose) else { return nil }
        return maker.build()
    }

    private init(rule: Rule, plan: RequestPlan, broken: [UInt8]?) {
        self.rule = rule
        self.plan = plan
        self.broken = broken
    }

    /// The literals of a rule that must be there, longest first.
    static func literals(_ c: Condition, _ choose: Int) -> [[UInt8]] {
        switch c {
        case .all(let parts): return parts.flatMap { literals($0, choose) }.sorted { $0.count > $1.count }
        case .any(let parts): return parts.isEmpty ? [] : literals(parts[choose % parts.count], choose)
        case .test(let t):
            return t.matches.compactMap { if case .content(let c) = $0, !c.isNegated { c.bytes } else { nil } }
        }
    }

    private mutating func add(_ c: Condition, _ choose: Int) -> Bool {
        switch c {
        case .all(let all):
            for part in all { guard add(part, choose) else { return false } }
            return true
        case .any(let all): return all.isEmpty ? false : add(all[choose % all.count], choose)
        case .test(let t): return add(t)
        }
    }

    private func maker() -> BufferMaker {
        var maker = BufferMaker()
        maker.choice = plan.choice
        maker.startsWithExpressions = plan.expressionsFirst
        return maker
    }

    /// The value whose transforms give what the test wants.
    private func value(_ test: BufferTest) -> [UInt8]? {
        var maker = maker()
        guard maker.add(test) else { return nil }
        return undo(test.transforms, maker.finish())
    }

    private func undo(_ transforms: [Transform], _ bytes: [UInt8]) -> [UInt8] {
        var out = damaged(bytes)
        for transform in transforms.reversed() {
            switch transform {
            case .base64Decode: out = BufferMaker.base64(out)
            case .hexDecode:
                out = out.flatMap { byte in
                    let text = String(byte, radix: 16)
                    return Array((text.utf8.count < 2 ? "0" + text : text).utf8)
                }
            case .length: out = Array(repeating: UInt8(ascii: "a"), count: Int(String(decoding: out, as: UTF8.self)) ?? 1)
            case .dotPrefix: if out.first == UInt8(ascii: ".") { out.removeFirst() }
            default: break
            }
        }
        return out
    }

    private func damaged(_ bytes: [UInt8]) -> [UInt8] {
        guard let broken, !broken.isEmpty, bytes.count >= broken.count else { return bytes }
        var out = bytes
        var at = 0
        while at + broken.count <= out.count {
            let isHere = zip(out[at...], broken).allSatisfy { a, b in a == b || (a | 32 == b | 32 && (a | 32) >= 97 && (a | 32) <= 122) }
            if isHere { for k in at..<at + broken.count { out[k] = out[k] == UInt8(ascii: "q") ? UInt8(ascii: "k") : UInt8(ascii: "q") } }
            at += 1
        }
        return out
    }

    private mutating func add(_ test: BufferTest) -> Bool {
        if test.transforms.contains(.count) {
            var count = 1
            for match in test.matches { if case .number(let s) = match { count = BufferMaker.holding(s) } }
            for _ in 0..<min(count, 64) { put(test, [UInt8(ascii: "x")]) }
            return true
        }
        if test.buffer.hasInstances {
            guard let value = value(test) else { return false }
            put(test, value)
            return true
        }
        var part = parts[test.buffer] ?? maker()
        guard part.add(test) else { return false }
        if !test.transforms.isEmpty {
            var fresh = maker()
            guard fresh.add(test) else { return false }
            let wanted = undo(test.transforms, fresh.finish())
            part = maker()
            part.put(wanted)
        }
        parts[test.buffer] = part
        return true
    }

    private mutating func put(_ test: BufferTest, _ value: [UInt8]) {
        var name: [UInt8]
        switch test.selector {
        case .name(let text)?: name = damaged(Array(text.utf8))
        case .pattern(let p)?: name = damaged(ExpressionSample.of(p.source, ignoresCase: p.ignoresCase, choice: plan.choice))
        case nil: name = [UInt8(ascii: "a")]
        }
        switch test.buffer {
        case .zoneArguments: arguments.append((name, value))
        case .zoneArgumentNames: arguments.append((value, [UInt8(ascii: "1")]))
        case .zoneBodyArguments: bodyArguments.append((name, value))
        case .zoneBodyArgumentNames: bodyArguments.append((value, [UInt8(ascii: "1")]))
        case .zoneFileNames: fileNames.append(value)
        case .zoneHeaders:
            if test.selector == nil { name = Array("X-Any".utf8) }
            fields.append((name, value))
        case .zoneHeaderNames: fields.append((value, [UInt8(ascii: "1")]))
        case .zoneCookies: cookies.append(name + [UInt8(ascii: "=")] + value)
        case .httpRequestHeader, .httpResponseHeader: line(value)
        default: break
        }
    }

    /// `Name: value`, or something that stands in one.
    private mutating func line(_ text: [UInt8]) {
        if let colon = text.firstIndex(of: UInt8(ascii: ":")), colon > 0, !text[..<colon].contains(32) {
            var value = Array(text[(colon + 1)...])
            if value.first == 32 { value.removeFirst() }
            fields.append((Array(text[..<colon]), value.isEmpty ? [UInt8(ascii: "z")] : value))
        } else {
            fields.append((Array("X-Any".utf8), text))
        }
    }

    private mutating func lines(_ block: [UInt8]) {
        for part in block.split(omittingEmptySubsequences: true, whereSeparator: { $0 == 13 || $0 == 10 }) { line(Array(part)) }
    }

    // MARK: putting it together

    private mutating func bytes(_ buffer: Buffer) -> [UInt8]? {
        guard var part = parts[buffer] else { return nil }
        return damaged(part.finish())
    }

    private mutating func build() -> Exchange {
        let names: [(Buffer, String)] = [
            (.httpHost, "Host"), (.httpHostRaw, "Host"), (.httpUserAgent, "User-Agent"), (.httpReferer, "Referer"), (.httpCookie, "Cookie"),
            (.httpContentType, "Content-Type"), (.httpContentLength, "Content-Length"), (.httpConnection, "Connection"),
            (.httpAccept, "Accept"), (.httpAcceptLanguage, "Accept-Language"), (.httpAcceptEncoding, "Accept-Encoding"),
        ]
        let replies: [(Buffer, String)] = [
            (.httpServer, "Server"), (.httpLocation, "Location"), (.responseCookie, "Set-Cookie"), (.responseContentType, "Content-Type"),
            (.responseContentLength, "Content-Length"), (.responseConnection, "Connection"),
        ]
        let isReply = parts.keys.contains { $0.moment == .responseHead || $0.moment == .responseBody }
        for (buffer, name) in isReply ? replies : names { if let value = bytes(buffer) { fields.append((Array(name.utf8), value)) } }
        for buffer in [Buffer.httpHeader, .httpHeaderRaw, .responseHeader, .responseHeaderRaw] { if let b = bytes(buffer) { lines(b) } }
        var exactNames = false
        for buffer in [Buffer.httpHeaderNames, .responseHeaderNames] {
            guard let block = bytes(buffer) else { continue }
            exactNames = true
            for part in block.split(omittingEmptySubsequences: true, whereSeparator: { $0 == 13 || $0 == 10 }) {
                if !fields.contains(where: { Self.same($0.name, Array(part)) }) { fields.append((Array(part), [UInt8(ascii: "1")])) }
            }
        }
        return isReply ? reply() : request(exactNames)
    }

    private static func same(_ a: [UInt8], _ b: [UInt8]) -> Bool {
        a.count == b.count && zip(a, b).allSatisfy { $0 | 32 == $1 | 32 }
    }
    private func has(_ name: String) -> Bool { fields.contains { Self.same($0.name, Array(name.utf8)) } }

    private mutating func reply() -> Exchange {
        let body = bytes(.fileData) ?? bytes(.httpResponseBody) ?? []
        var out =
            bytes(.httpResponseLine) ?? Array("HTTP/1.1 ".utf8) + (bytes(.httpStatusCode) ?? Array("200".utf8)) + [32]
            + (bytes(.httpStatusMessage) ?? Array("OK".utf8))
        out += [13, 10]
        if !has("content-length") { fields.append((Array("Content-Length".utf8), Array(String(body.count).utf8))) }
        return Exchange(request: Array("GET / HTTP/1.1\r\nHost: a\r\n\r\n".utf8), response: out + head() + body)
    }

    private func head() -> [UInt8] {
        var out: [UInt8] = []
        for field in fields { out += field.name + [58, 32] + field.value + [13, 10] }
        return out + [13, 10]
    }

    private mutating func request(_ exactNames: Bool) -> Exchange {
        var body = bytes(.httpRequestBody) ?? bytes(.zoneBody) ?? []
        if let raw = bytes(.fileData) { body += raw }
        let payload = bytes(.payload)
        if body.isEmpty, !bodyArguments.isEmpty || !fileNames.isEmpty { body = parameters() }
        if !cookies.isEmpty { fields.append((Array("Cookie".utf8), Array(cookies.joined(separator: Array("; ".utf8))))) }
        if !has("host"), !exactNames { fields.insert((Array("Host".utf8), [UInt8(ascii: "a")]), at: 0) }
        var method = bytes(.httpMethod) ?? bytes(.zoneMethod) ?? Array((body.isEmpty ? "GET" : "POST").utf8)
        method = method.filter { $0 > 32 }
        if let payload {
            if method == Array("POST".utf8) || body.isEmpty == false {
                body += payload
            } else {
                fields.append((Array("X-Any".utf8), payload))
            }
        }
        if !has("content-length"), !body.isEmpty {
            fields.append((Array("Content-Length".utf8), Array(String(body.count).utf8)))
        }
        let version = bytes(.httpProtocol) ?? bytes(.zoneProtocol) ?? Array("HTTP/1.1".utf8)
        let line: [UInt8]
        if let whole = bytes(.httpRequestLine) ?? bytes(.httpStart) {
            line =
                whole.contains(13) || String(decoding: whole, as: UTF8.self).contains(" HTTP/")
                ? whole.filter { $0 != 13 && $0 != 10 }
                : (whole.contains(32) ? whole : method + [32] + whole) + [32] + version
        } else {
            line = method + [32] + target() + [32] + version
        }
        return Exchange(request: line + [13, 10] + head() + body)
    }

    private mutating func target() -> [UInt8] {
        var raw: [UInt8]
        if let uri = bytes(.httpURI) {
            raw = Self.encoded(addressed(uri))
        } else if let uri = bytes(.httpURIRaw) ?? bytes(.zoneURI) {
            raw = addressed(uri).flatMap { $0 <= 32 || $0 > 126 ? Array("%20".utf8) : [$0] }
        } else if let path = bytes(.zonePath) {
            raw = (path.first == UInt8(ascii: "/") ? path : [UInt8(ascii: "/")] + path).flatMap { $0 <= 32 ? Array("%20".utf8) : [$0] }
        } else {
            raw = [UInt8(ascii: "/")]
        }
        for (i, item) in arguments.enumerated() {
            raw.append(i == 0 && !raw.contains(UInt8(ascii: "?")) ? UInt8(ascii: "?") : UInt8(ascii: "&"))
            raw += Self.encodedValue(item.name) + [UInt8(ascii: "=")] + Self.encodedValue(item.value)
        }
        return raw
    }

    private func addressed(_ uri: [UInt8]) -> [UInt8] {
        switch plan.address {
        case .asIs: uri
        case .behindSlash: Array("/".utf8) + uri
        case .inQuery: Array("/x?".utf8) + uri
        case .inValue: Array("/x?a=".utf8) + uri
        }
    }

    /// What may stand in a request line as it is stays; all else is escaped.
    private static func encoded(_ bytes: [UInt8]) -> [UInt8] {
        bytes.flatMap { c -> [UInt8] in c <= 32 || c > 126 || c == UInt8(ascii: "%") || c == UInt8(ascii: "#") ? escaped(c) : [c] }
    }
    private static func encodedValue(_ bytes: [UInt8]) -> [UInt8] {
        bytes.flatMap { c -> [UInt8] in
            c <= 32 || c > 126 || "%#&+=;?".utf8.contains(c) ? escaped(c) : [c]
        }
    }
    private static func escaped(_ c: UInt8) -> [UInt8] {
        let text = String(c, radix: 16)
        return Array(("%" + (text.utf8.count < 2 ? "0" : "") + text).utf8)
    }

    /// A form, JSON or parts, as the names ask for.
    private mutating func parameters() -> [UInt8] {
        let isJSON = bodyArguments.contains { $0.name.starts(with: Array("json".utf8)) }
        if !fileNames.isEmpty {
            setType("multipart/form-data; boundary=x")
            var out: [UInt8] = []
            for item in bodyArguments {
                out +=
                    Array("--x\r\nContent-Disposition: form-data; name=\"".utf8) + item.name + Array("\"\r\n\r\n".utf8) + item.value + [
                        13, 10,
                    ]
            }
            for name in fileNames {
                let quoted = name.flatMap { $0 == UInt8(ascii: "\"") || $0 == UInt8(ascii: "\\") ? [UInt8(ascii: "\\"), $0] : [$0] }
                out +=
                    Array("--x\r\nContent-Disposition: form-data; name=\"f\"; filename=\"".utf8) + quoted
                    + Array("\"\r\n\r\ncontent\r\n".utf8)
            }
            return out + Array("--x--\r\n".utf8)
        }
        if isJSON {
            setType("application/json")
            return json(bodyArguments.map { ($0.name.split(separator: UInt8(ascii: ".")).dropFirst().map { Array($0) }, $0.value) })
        }
        setType("application/x-www-form-urlencoded")
        return Array(
            bodyArguments.map { Self.encodedValue($0.name) + [UInt8(ascii: "=")] + Self.encodedValue($0.value) }
                .joined(separator: [UInt8(ascii: "&")]))
    }

    private mutating func setType(_ type: String) {
        if !has("content-type") { fields.append((Array("Content-Type".utf8), Array(type.utf8))) }
    }

    private func json(_ items: [(path: [[UInt8]], value: [UInt8])]) -> [UInt8] {
        func quoted(_ b: [UInt8]) -> [UInt8] {
            [UInt8(ascii: "\"")]
                + b.flatMap { c -> [UInt8] in
                    c < 32 ? Array("\\u00".utf8) + Self.escaped(c).dropFirst() : c == 34 || c == 92 ? [92, c] : [c]
                } + [UInt8(ascii: "\"")]
        }
        if let item = items.first(where: { $0.path.isEmpty }) { return quoted(item.value) }
        var groups: [(name: [UInt8], items: [(path: [[UInt8]], value: [UInt8])])] = []
        for item in items {
            let rest = (Array(item.path.dropFirst()), item.value)
            if let at = groups.firstIndex(where: { $0.name == item.path[0] }) {
                groups[at].items.append(rest)
            } else {
                groups.append((item.path[0], [rest]))
            }
        }
        let isList = groups.allSatisfy { Int(String(decoding: $0.name, as: UTF8.self)) != nil }
        let members = groups.map { isList ? json($0.items) : quoted($0.name) + [58] + json($0.items) }
        let inside = Array(members.joined(separator: [44]))
        return isList ? [91] + inside + [93] : [123] + inside + [125]
    }
}
