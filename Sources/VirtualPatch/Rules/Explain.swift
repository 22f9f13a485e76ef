// Says in words what a rule looks for, on which service, for which CVE.

extension Rule {
    /// One sentence on the traffic that the rule looks at.
    public var service: String {
        var text = traffic.application.map { $0.rawValue.uppercased() } ?? ""
        if text.isEmpty {
            text =
                switch traffic.transport {
                case .any: "any protocol"
                case .tcp: "TCP"
                case .udp: "UDP"
                case .icmp: "ICMP"
                }
        }
        if traffic.packetsOnly { text += ", single packets" }
        if traffic.streamOnly { text += ", the stream" }
        if flow.toServer { text += " to the server" }
        if flow.toClient { text += " to the client" }
        if !traffic.destinationPorts.isAny { text += ", port \(traffic.destinationPorts.text)" }
        if !traffic.sourcePorts.isAny { text += ", from port \(traffic.sourcePorts.text)" }
        return text
    }

    /// What must hold, one line each; alternatives are indented below "any of".
    public var explanation: [String] {
        var out: [String] = []
        if flow.established { out.append("the connection is established") }
        if flow.notEstablished { out.append("the connection is not yet established") }
        if let size = packet.payloadSize { out.append("the packet's payload is \(size.text) bytes") }
        if let type = packet.icmpType { out.append("the ICMP type is \(type.text)") }
        if let code = packet.icmpCode { out.append("the ICMP code is \(code.text)") }
        for size in packet.streamSizes { out.append("the \(size.side.rawValue) has sent \(size.test.text) bytes") }
        for bit in flowBits where bit.operation == .isset || bit.operation == .isnotset {
            out.append("flowbit \(bit.names.joined(separator: " or ")) is \(bit.operation == .isset ? "" : "not ")set on the connection")
        }
        for bit in hostBits where bit.operation == .isset || bit.operation == .isnotset {
            out.append("xbit \(bit.name) is \(bit.operation == .isset ? "" : "not ")set for the \(bit.track.rawValue)")
        }
        for event in events { out.append("the parser reports \(event)") }
        condition.explain(into: &out, indent: "", variables: variables)
        for bit in flowBits where bit.operation != .isset && bit.operation != .isnotset {
            out.append("then: flowbit \(bit.names.joined()) is \(bit.operation.rawValue)")
        }
        for bit in hostBits where bit.operation != .isset && bit.operation != .isnotset {
            out.append("then: xbit \(bit.name) is \(bit.operation.rawValue) for the \(bit.track.rawValue), for \(bit.expire) s")
        }
        if let t = threshold {
            out.append("told at most as the threshold says: \(t.kind.rawValue), \(t.count) in \(t.seconds) s \(t.track.rawValue)")
        }
        if isSilent { out.append("nothing is told") }
        return out
    }
}

extension Condition {
    func explain(into out: inout [String], indent: String, variables: [String]) {
        switch self {
        case .all(let parts): for part in parts { part.explain(into: &out, indent: indent, variables: variables) }
        case .any(let parts):
            out.append(indent + "any of")
            for (i, part) in parts.enumerated() {
                if case .all(let inner) = part, inner.count > 1 { out.append(indent + "  \(i + 1)") }
                part.explain(into: &out, indent: indent + "  ", variables: variables)
            }
        case .test(let test):
            var name = test.buffer.name
            switch test.selector {
            case .name(let n): name += " '\(n)'"
            case .pattern(let p): name += " like /\(p.source)/"
            case nil: break
            }
            if !test.transforms.isEmpty { name += " (" + test.transforms.map(\.rawValue).joined(separator: ", ") + ")" }
            for (i, match) in test.matches.enumerated() { out.append(indent + (i == 0 ? name + " " : "  and ") + match.text(variables)) }
        }
    }
}

extension SizeTest {
    var text: String {
        switch kind {
        case .equal: "\(low)"
        case .notEqual: "not \(low)"
        case .less: "less than \(low)"
        case .more: "more than \(low)"
        case .lessOrEqual: "at most \(low)"
        case .moreOrEqual: "at least \(low)"
        case .between: "between \(low) and \(high), both excluded,"
        }
    }
}

extension Amount {
    func text(_ variables: [String]) -> String {
        switch self {
        case .value(let n): "\(n)"
        case .variable(let i): i < variables.count ? variables[i] : "?"
        }
    }
}

extension Match {
    func text(_ variables: [String]) -> String {
        switch self {
        case .content(let c): return c.text(variables)
        case .pattern(let p):
            return (p.isNegated ? "does not match" : "matches") + " /\(p.source)/" + (p.ignoresCase ? "i" : "")
                + (p.isRelative ? ", after the match before" : "")
        case .byteTest(let t):
            return "holds a number of \(t.count.text(variables)) bytes at \(t.offset.text(variables))"
                + (t.isRelative ? " after the match before" : "")
                + " that is \(t.isNegated ? "not " : "")\(t.comparison.rawValue) \(t.value.text(variables))"
        case .byteJump(let j): return "is read on from where \(j.count.text(variables)) bytes at \(j.offset.text(variables)) lead"
        case .byteExtract(let e):
            return "gives \(Amount.variable(e.variable).text(variables)) from \(e.count) bytes at \(e.offset.text(variables))"
        case .byteMath(let m):
            return
                "gives \(Amount.variable(m.variable).text(variables)) from \(m.count.text(variables)) bytes \(m.operation) \(m.operand.text(variables))"
        case .dataAt(let d):
            return (d.isNegated ? "has no" : "has") + " byte \(d.position.text(variables))"
                + (d.isRelative ? " after the match before" : "")
        case .size(let s): return "is \(s.text) bytes long"
        case .base64(let b):
            return "holds base64 that decodes to what " + b.matches.map { $0.text(variables) }.joined(separator: ", ")
        case .injection(let i): return i == .sql ? "looks like SQL injection (libinjection)" : "looks like script injection (libinjection)"
        case .number(let s): return "is a number, \(s.text)"
        case .capture(let p): return "is reduced to the first group of /\(p.source)/"
        case .transform(let t): return "after \(t.rawValue)"
        }
    }
}

extension Content {
    func text(_ variables: [String]) -> String {
        var shown = ""
        var inHex = false
        for byte in bytes.prefix(80) {
            let isText = byte >= 32 && byte < 127 && byte != UInt8(ascii: "|") && byte != UInt8(ascii: "\"")
            if isText == inHex { shown += "|" }
            if isText {
                shown.unicodeScalars.append(UnicodeScalar(byte))
            } else {
                shown += (inHex ? " " : "") + (byte < 16 ? "0" : "") + String(byte, radix: 16)
            }
            inHex = !isText
        }
        if inHex { shown += "|" }
        let verb =
            switch (startsBuffer, endsBuffer) {
            case (true, true): isNegated ? "is not" : "is"
            case (true, false): isNegated ? "does not start with" : "starts with"
            case (false, true): isNegated ? "does not end with" : "ends with"
            case (false, false): isNegated ? "does not hold" : "holds"
            }
        var text = "\(verb) \"\(shown)\"" + (bytes.count > 80 ? "…" : "") + (ignoresCase ? " in any case" : "")
        if let offset { text += ", from byte \(offset.text(variables))" }
        if let depth { text += ", within the first \(depth.text(variables))" }
        if isRelative { text += ", after the match before" }
        if let distance, distance != .value(0) { text += ", \(distance.text(variables)) on" }
        if let within { text += ", within \(within.text(variables))" }
        return text
    }
}
