// Turns one rule of the Suricata language into the internal form, or refuses it with the keyword and the reason.

import ELF

/// Reads one rule. Every keyword is understood, known to change nothing, or the rule's end.
struct SuricataRuleReader {
    private var rule: Rule
    private var names = VariableNames()
    private var lists: [List] = []
    /// Where the next match goes; nil: the payload.
    private var current: Int?
    /// The list that the latest match went to, for modifiers after it.
    private var latest: Int?
    private var base64: (list: Int, index: Int)?
    private var keyword = ""

    private struct List {
        var buffer: Buffer
        var transforms: [Transform]
        var captures: [Pattern] = []
        var matches: [Match] = []
        var isSticky: Bool
    }

    static func read(_ bytes: ArraySlice<UInt8>, file: String, line: Int, variables: RuleVariables) throws(Failure) -> Rule {
        let place = "\(file):\(line)"
        let text: SuricataRuleText
        do throws(Failure) { text = try SuricataText.parse(bytes, line: line) } catch {
            throw Failure(error.code, error.sentence, at: place, remedy: error.remedy)
        }
        var reader = SuricataRuleReader(place: place)
        do throws(Failure) {
            try reader.header(text.header, variables)
            for (name, value) in text.options {
                reader.keyword = name
                try reader.option(name, value)
            }
            reader.keyword = ""
            return try reader.finish()
        } catch {
            let sid = reader.rule.sid ?? text.options.first { $0.name == "sid" }.flatMap { Int($0.value ?? "") }
            let at = place + (sid.map { ": rule \($0)" } ?? "") + (reader.keyword.isEmpty ? "" : ": \(reader.keyword)")
            throw Failure(error.code, error.sentence, at: at, remedy: error.remedy)
        }
    }

    private init(place: String) { rule = Rule(id: "", place: place) }

    private mutating func header(_ words: [Substring], _ variables: RuleVariables) throws(Failure) {
        guard words.count == 7 else { throw Failure("rule-malformed", "a header has 7 words, this one \(words.count)") }
        guard
            let action = [
                "alert": Action.alert, "drop": .drop, "reject": .reject, "pass": .pass, "rejectsrc": .reject,
                "rejectboth": .reject, "rejectdst": .reject,
            ][String(words[0])]
        else { throw Failure("rule-action-unsupported", "the action '\(words[0])' is not supported") }
        rule.action = action
        switch words[1] {
        case "ip", "ipv4", "ipv6", "ip4", "ip6": break
        case "tcp": rule.traffic.transport = .tcp
        case "tcp-pkt":
            rule.traffic.transport = .tcp
            rule.traffic.packetsOnly = true
        case "tcp-stream":
            rule.traffic.transport = .tcp
            rule.traffic.streamOnly = true
        case "udp": rule.traffic.transport = .udp
        case "icmp", "icmpv4": rule.traffic.transport = .icmp
        case "http", "http1": rule.traffic.application = .http
        default:
            guard let application = AppProtocol(rawValue: String(words[1])) else {
                throw Failure("rule-protocol-unsupported", "the protocol '\(words[1])' is not supported")
            }
            rule.traffic.application = application
        }
        rule.traffic.source = try AddressSet.parse(words[2], variables)
        rule.traffic.sourcePorts = try PortSet.parse(words[3], variables)
        switch words[4] {
        case "->": break
        case "<>": rule.traffic.isBidirectional = true
        default: throw Failure("rule-malformed", "'\(words[4])' is no direction")
        }
        rule.traffic.destination = try AddressSet.parse(words[5], variables)
        rule.traffic.destinationPorts = try PortSet.parse(words[6], variables)
    }

    /// Options that say something about the rule and nothing about traffic.
    private static let remarks: Set<String> = ["classtype", "gid", "target", "tag", "fast_pattern_only", "rawbytes", "prefilter"]

    private mutating func option(_ name: String, _ value: String?) throws(Failure) {
        if Self.remarks.contains(name) { return }
        if let buffer = Buffer.sticky[name] {
            if value == nil { try select(name, buffer) } else { throw Failure("rule-malformed", "takes no value") }
            return
        }
        if try about(name, value) { return }
        if try modifier(name, value) { return }
        guard let value else {
            guard try withoutValue(name) else { throw unsupported }
            return
        }
        switch name {
        case "content", "uricontent": try content(value, into: name == "uricontent" ? .httpURI : nil)
        case "pcre": try pattern(value)
        case "frame":
            guard value == "dns.pdu" else { throw Failure("rule-option-unsupported", "the frame '\(value)' is not supported") }
            try select(name, .dnsMessage)
        case "byte_test":
            let t = try SuricataOperations.byteTest(value, names)
            add(.byteTest(t), isRelative: t.isRelative)
        case "byte_jump":
            let j = try SuricataOperations.byteJump(value, names)
            add(.byteJump(j), isRelative: j.isRelative)
        case "byte_extract":
            let e = try SuricataOperations.byteExtract(value, &names)
            add(.byteExtract(e), isRelative: e.isRelative)
        case "byte_math":
            let m = try SuricataOperations.byteMath(value, &names)
            add(.byteMath(m), isRelative: m.isRelative)
        case "isdataat":
            let d = try SuricataOperations.dataAt(value, names)
            add(.dataAt(d), isRelative: d.isRelative)
        case "bsize": add(.size(try SuricataOperations.size(value)), isRelative: false)
        case "urilen":
            let w = SuricataOperations.words(value)
            guard w.count == 1 || (w.count == 2 && (w[1] == "raw" || w[1] == "norm")) else { throw unsupported }
            let isRaw = w.count == 1 || w[1] == "raw"
            let list = self.list(isRaw ? .httpURIRaw : .httpURI, [], isSticky: false)
            lists[list].matches.append(.size(try SuricataOperations.size(String(w[0]))))
        case "base64_decode":
            let b = try SuricataOperations.base64(value)
            add(.base64(b), isRelative: b.isRelative)
        case "pcrexform":
            let (_, source) = SuricataText.unquoted(value)
            guard let i = current, lists[i].matches.isEmpty else { throw Failure("rule-malformed", "stands behind its buffer") }
            lists[i].captures.append(Pattern(source: String(source)))
        default: throw unsupported
        }
    }

    private var unsupported: Failure { Failure("rule-keyword-unsupported", "the keyword '\(keyword)' is not supported") }

    /// What the rule is called and which packets it looks at.
    private mutating func about(_ name: String, _ value: String?) throws(Failure) -> Bool {
        switch name {
        case "msg": rule.message = String(SuricataText.unquoted(value ?? "").text).replacingEscapes
        case "sid":
            guard let n = value.flatMap({ Int($0) }), n > 0 else { throw Failure("rule-malformed", "a sid is a number above 0") }
            rule.sid = n
            rule.id = String(n)
        case "rev": rule.revision = value.flatMap { Int($0) } ?? 0
        case "priority": rule.priority = value.flatMap { Int($0) } ?? 3
        case "reference":
            let text = value ?? ""
            rule.references.append(text)
            if text.lowercased().hasPrefix("cve,") { addCVE(text.dropFirst(4).trimmed) }
        case "metadata":
            for item in SuricataOperations.words(value ?? "") where item.hasPrefix("cve ") {
                for word in item.dropFirst(4).split(separator: " ") { addCVE(word) }
            }
        case "flow": try flow(value ?? "")
        case "flowbits":
            if let bit = try SuricataOperations.flowBit(value ?? "") { rule.flowBits.append(bit) } else { rule.isSilent = true }
        case "xbits", "hostbits": rule.hostBits.append(try SuricataOperations.hostBit(value ?? ""))
        case "threshold", "detection_filter":
            rule.threshold = try SuricataOperations.threshold((name == "threshold" ? "" : "type both, ") + (value ?? ""))
        case "noalert": rule.isSilent = true
        case "dsize": rule.packet.payloadSize = try SuricataOperations.size(value ?? "")
        case "itype": rule.packet.icmpType = try SuricataOperations.size(value ?? "")
        case "icode": rule.packet.icmpCode = try SuricataOperations.size(value ?? "")
        case "ttl": rule.packet.ttl = try SuricataOperations.size(value ?? "")
        case "flags", "tcp.flags": rule.packet.flags = try SuricataOperations.tcpFlags(value ?? "")
        case "stream_size": rule.packet.streamSizes.append(try SuricataOperations.streamSize(value ?? ""))
        case "sameip": rule.packet.addressesMatch = true
        case "app-layer-protocol":
            guard let value, let p = AppProtocol(rawValue: value), rule.traffic.application == nil else { throw unsupported }
            rule.traffic.application = p
        case "app-layer-event":
            guard value == "http.invalid_transfer_encoding_value_in_request" else {
                throw Failure("rule-option-unsupported", "the event '\(value ?? "")' is not supported")
            }
            rule.events.append(value ?? "")
        default: return false
        }
        return true
    }

    private mutating func addCVE(_ text: Substring) {
        var digits = text.replacing("_", with: "-").uppercased()[...]
        if digits.hasPrefix("CVE-") { digits = digits.dropFirst(4) }
        let parts = digits.split(separator: "-")
        guard parts.count == 2, parts[0].count == 4, parts.allSatisfy({ $0.allSatisfy(\.isNumber) }) else { return }
        let id = "CVE-\(digits)"
        if !rule.cves.contains(id) { rule.cves.append(id) }
    }

    private mutating func flow(_ value: String) throws(Failure) {
        for word in SuricataOperations.words(value) {
            switch word {
            case "established": rule.flow.established = true
            case "not_established": rule.flow.notEstablished = true
            case "stateless": rule.flow.stateless = true
            case "to_server", "from_client": rule.flow.toServer = true
            case "to_client", "from_server": rule.flow.toClient = true
            case "only_stream": rule.flow.onlyStream = true
            case "no_stream": rule.flow.noStream = true
            case "no_frag", "only_frag": throw Failure("rule-option-unsupported", "flow with '\(word)' is not supported")
            default: throw Failure("rule-malformed", "'\(word)' says nothing about a flow")
            }
        }
        guard !(rule.flow.toServer && rule.flow.toClient) else { throw Failure("rule-malformed", "two directions") }
    }

    private mutating func withoutValue(_ name: String) throws(Failure) -> Bool {
        let transforms: [String: Transform] = [
            "dotprefix": .dotPrefix, "to_lowercase": .lowercase, "to_uppercase": .uppercase, "url_decode": .urlDecode,
            "strip_whitespace": .stripWhitespace, "compress_whitespace": .compressWhitespace,
            "header_lowercase": .lowercase,
        ]
        if let transform = transforms[name] {
            guard let i = current, lists[i].isSticky else { throw Failure("rule-malformed", "stands behind a buffer") }
            if lists[i].matches.isEmpty {
                lists[i].transforms.append(transform)
            } else {
                let buffer = lists[i].buffer
                lists.append(List(buffer: buffer, transforms: [transform], isSticky: true))
                current = lists.count - 1
            }
            return true
        }
        switch name {
        case "pkt_data":
            current = nil
            base64 = nil
        case "base64_decode":
            add(.base64(Base64Decode()), isRelative: false)
        case "base64_data":
            for l in lists.indices.reversed() {
                for m in lists[l].matches.indices.reversed() {
                    if case .base64 = lists[l].matches[m] {
                        base64 = (l, m)
                        return true
                    }
                }
            }
            throw Failure("rule-malformed", "no base64_decode stands before")
        default: return false
        }
        return true
    }

    // MARK: matches and their buffers

    private mutating func select(_ name: String, _ buffer: Buffer) throws(Failure) {
        // Old keywords without a dot change the content before; those that never did are sticky.
        let isModifier =
            name.hasPrefix("http_")
            && ![
                "http_request_line", "http_protocol", "http_header_names", "http_start",
                "http_referer", "http_content_type", "http_content_len", "http_connection", "http_accept", "http_accept_lang",
                "http_accept_enc", "http_request_header", "http_response_line", "http_response_header",
            ].contains(name)
        if !isModifier {
            base64 = nil
            current = list(buffer, [], isSticky: true)
            return
        }
        guard base64 == nil, current == nil, let l = latest, let last = lists[l].matches.last, case .content = last else {
            throw Failure("rule-malformed", "no content stands before")
        }
        lists[l].matches.removeLast()
        let to = list(buffer, [], isSticky: false)
        append(last, to: to)
        latest = to
    }

    private mutating func list(_ buffer: Buffer, _ transforms: [Transform], isSticky: Bool) -> Int {
        if let i = lists.firstIndex(where: { $0.buffer == buffer && $0.transforms == transforms && $0.captures.isEmpty }) {
            if isSticky { lists[i].isSticky = true }
            return i
        }
        lists.append(List(buffer: buffer, transforms: transforms, isSticky: isSticky))
        return lists.count - 1
    }

    private mutating func add(_ match: Match, isRelative: Bool) {
        if base64 != nil {
            withBase64 { (matches: inout [Match]) in
                if isRelative { Self.follow(&matches) }
                matches.append(match)
            }
            return
        }
        let to = current ?? list(.payload, [], isSticky: false)
        if isRelative { Self.follow(&lists[to].matches) }
        lists[to].matches.append(match)
        latest = to
    }

    private mutating func withBase64(_ body: (inout [Match]) -> Void) {
        guard let (l, m) = base64, case .base64(var b) = lists[l].matches[m] else { return }
        body(&b.matches)
        lists[l].matches[m] = .base64(b)
    }

    private mutating func append(_ match: Match, to l: Int) {
        var relative = false
        if case .content(let c) = match { relative = c.isRelative }
        if relative { Self.follow(&lists[l].matches) }
        lists[l].matches.append(match)
    }

    /// Marks the latest content or expression: what follows looks on from it, so it is worth trying its next occurrence.
    private static func follow(_ matches: inout [Match]) {
        for i in matches.indices.reversed() {
            switch matches[i] {
            case .content(var c):
                c.isFollowed = true
                matches[i] = .content(c)
                return
            case .pattern(var p):
                p.isFollowed = true
                matches[i] = .pattern(p)
                return
            default: continue
            }
        }
    }

    private mutating func content(_ value: String, into buffer: Buffer?) throws(Failure) {
        let (negated, text) = SuricataText.unquoted(value)
        let c = Content(bytes: try SuricataText.contentBytes(text), isNegated: negated)
        if let buffer {
            let to = list(buffer, [], isSticky: false)
            lists[to].matches.append(.content(c))
            latest = to
        } else {
            add(.content(c), isRelative: false)
        }
    }

    private mutating func pattern(_ value: String) throws(Failure) {
        let (p, buffer) = try SuricataOperations.pattern(value)
        try Regex.check(p)
        if let buffer, current == nil || lists[current ?? 0].buffer != buffer {
            guard current == nil else {
                throw Failure("rule-malformed", "the expression's flag names another buffer than the one selected")
            }
            let to = list(buffer, [], isSticky: false)
            if p.isRelative { Self.follow(&lists[to].matches) }
            lists[to].matches.append(.pattern(p))
            latest = to
        } else {
            add(.pattern(p), isRelative: p.isRelative)
        }
    }

    /// Keywords that change the content before them.
    private mutating func modifier(_ name: String, _ value: String?) throws(Failure) -> Bool {
        let known: Set<String> = ["nocase", "offset", "depth", "distance", "within", "startswith", "endswith", "fast_pattern"]
        guard known.contains(name) else { return false }
        var found = false
        var relative = false
        var failure: Failure?
        let names = names
        func change(_ matches: inout [Match]) {
            guard let i = matches.lastIndex(where: { if case .content = $0 { true } else { false } }),
                case .content(var c) = matches[i]
            else { return }
            found = true
            do throws(Failure) {
                try Self.change(&c, name, value, names)
            } catch { failure = error }
            matches[i] = .content(c)
            if name == "distance" || name == "within" {
                relative = true
                var before = Array(matches[..<i])
                Self.follow(&before)
                matches.replaceSubrange(..<i, with: before)
            }
        }
        if base64 != nil { withBase64(change) } else if let l = latest { change(&lists[l].matches) }
        if let failure { throw failure }
        guard found else { throw Failure("rule-malformed", "no content stands before") }
        _ = relative
        return true
    }

    private static func change(_ c: inout Content, _ name: String, _ value: String?, _ names: VariableNames) throws(Failure) {
        switch name {
        case "nocase": c.ignoresCase = true
        case "startswith":
            guard c.offset == nil, c.depth == nil, !c.isRelative else { throw Failure("rule-malformed", "with another position") }
            c.startsBuffer = true
        case "endswith": c.endsBuffer = true
        case "fast_pattern": c.isFastPattern = true
        default:
            let amount = try SuricataOperations.amount(value ?? "", names)
            let exists = name == "offset" ? c.offset : name == "depth" ? c.depth : name == "distance" ? c.distance : c.within
            guard exists == nil else { throw Failure("rule-malformed", "stands twice at one content") }
            if c.startsBuffer, name == "offset" || name == "depth" { throw Failure("rule-malformed", "with startswith") }
            if case .value(let n) = amount, name == "depth" || name == "within", n < c.bytes.count {
                throw Failure("rule-malformed", "\(n) is shorter than the content's \(c.bytes.count) bytes")
            }
            switch name {
            case "offset": c.offset = amount
            case "depth": c.depth = amount
            case "distance": c.distance = amount
            default: c.within = amount
            }
        }
    }

    // MARK: the end

    private mutating func finish() throws(Failure) -> Rule {
        guard rule.sid != nil else { throw Failure("rule-malformed", "no sid") }
        for list in lists where list.matches.isEmpty && list.isSticky {
            throw Failure("rule-malformed", "nothing is matched in \(list.buffer.name)")
        }
        lists.removeAll { $0.matches.isEmpty }
        rule.variables = names.names
        rule.variableCount = names.names.count
        let isHTTP = lists.contains { $0.buffer.name.hasPrefix("http.") }
        if isHTTP && rule.traffic.application == nil { rule.traffic.application = .http }
        let requests = try tests(toClient: false), responses = try tests(toClient: true)
        let asRequest = !requests.contains { $0.buffer.moment == .responseHead || $0.buffer.moment == .responseBody }
        let asResponse = !responses.contains { $0.buffer.moment == .requestHead || $0.buffer.moment == .requestBody }
        if rule.traffic.application == nil, lists.contains(where: { $0.buffer == .fileData }) {
            let places = try files()
            rule.condition = places.count == 1 ? places[0] : .any(places)
            return try checked()
        }
        switch (rule.flow.toServer, rule.flow.toClient) {
        case (true, _):
            guard asRequest || !isHTTP else { throw Failure("rule-malformed", "looks at requests, but asks for parts of responses") }
            rule.condition = .all(requests.map { .test($0) })
        case (_, true):
            guard asResponse || !isHTTP else { throw Failure("rule-malformed", "looks at responses, but asks for parts of requests") }
            rule.condition = .all(responses.map { .test($0) })
        default:
            if asRequest && asResponse && requests != responses {
                rule.condition = .any([.all(requests.map { .test($0) }), .all(responses.map { .test($0) })])
            } else if asRequest {
                rule.condition = .all(requests.map { .test($0) })
            } else if asResponse {
                rule.condition = .all(responses.map { .test($0) })
            } else {
                throw Failure("rule-option-unsupported", "asks for parts of requests and of responses in one rule")
            }
        }
        return try checked()
    }

    private func checked() throws(Failure) -> Rule {
        if let (a, b) = rule.condition.apart {
            throw Failure("rule-option-unsupported", "asks for \(a.name) and \(b.name), which are never looked at together")
        }
        return rule
    }

    /// A rule on files of no protocol in particular: in mails, in requests, in responses.
    private func files() throws(Failure) -> [Condition] {
        var buffers: [Buffer] = []
        if !rule.flow.toClient { buffers += [.mailContent, .httpRequestBody] }
        if !rule.flow.toServer { buffers.append(.fileData) }
        var out: [Condition] = []
        for buffer in buffers {
            let tests = try tests(toClient: buffer == .fileData)
            let condition = Condition.all(
                tests.map { test in
                    var test = test
                    if test.buffer == .fileData { test.buffer = buffer }
                    return .test(test)
                })
            if condition.apart == nil { out.append(condition) }
        }
        guard !out.isEmpty else { throw Failure("rule-option-unsupported", "asks for file.data and for parts that never come with it") }
        return out
    }

    private func tests(toClient: Bool) throws(Failure) -> [BufferTest] {
        lists.map { list in
            var buffer = list.buffer
            if toClient, let other = buffer.counterpart { buffer = other }
            if buffer == .fileData, rule.flow.toServer, rule.traffic.application == .http { buffer = .httpRequestBody }
            if buffer == .fileData, rule.traffic.application == .smtp { buffer = .mailContent }
            return BufferTest(
                buffer: buffer, transforms: list.transforms, matches: list.captures.map { .capture($0) } + list.matches)
        }
    }
}

extension String {
    /// Backslashes before `"`, `;`, `\` and `:` go.
    var replacingEscapes: String {
        guard contains("\\") else { return self }
        var out = ""
        var isEscaped = false
        for c in self {
            if !isEscaped, c == "\\" {
                isEscaped = true
                continue
            }
            out.append(c)
            isEscaped = false
        }
        return out
    }
}
