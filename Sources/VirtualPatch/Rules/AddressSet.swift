// Addresses and ports as rule headers write them: lists, ranges, negations and variables.

import ELF

/// 16 bytes, IPv4 as mapped addresses (`::ffff:a.b.c.d`).
public struct Address: Sendable, Hashable {
    public var high: UInt64
    public var low: UInt64

    public init(high: UInt64, low: UInt64) {
        self.high = high
        self.low = low
    }
    public init(v4: UInt32) { self.init(high: 0, low: 0xffff_0000_0000 | UInt64(v4)) }
    public var isV4: Bool { high == 0 && low >> 32 == 0xffff }

    public init?(_ text: Substring) {
        if let v4 = Address.v4(text) { self.init(v4: v4) } else if let v6 = Address.v6(text) { self = v6 } else { return nil }
    }

    private static func v4(_ text: Substring) -> UInt32? {
        let parts = text.split(separator: ".", omittingEmptySubsequences: false)
        guard parts.count == 4 else { return nil }
        var value: UInt32 = 0
        for part in parts {
            guard part.count <= 3, let byte = UInt8(part) else { return nil }
            value = value << 8 | UInt32(byte)
        }
        return value
    }

    private static func v6(_ text: Substring) -> Address? {
        func groups(_ s: Substring) -> [UInt16]? {
            if s.isEmpty { return [] }
            var out: [UInt16] = []
            for part in s.split(separator: ":", omittingEmptySubsequences: false) {
                if part.contains("."), let v4 = v4(part) {
                    out += [UInt16(v4 >> 16), UInt16(truncatingIfNeeded: v4)]
                } else {
                    guard part.count <= 4, let group = UInt16(part, radix: 16) else { return nil }
                    out.append(group)
                }
            }
            return out
        }
        let all: [UInt16]
        if let gap = text.firstRange(of: "::") {
            guard let a = groups(text[..<gap.lowerBound]), let b = groups(text[gap.upperBound...]), a.count + b.count < 8 else {
                return nil
            }
            all = a + Array(repeating: 0, count: 8 - a.count - b.count) + b
        } else {
            guard let a = groups(text) else { return nil }
            all = a
        }
        guard all.count == 8 else { return nil }
        func join(_ g: ArraySlice<UInt16>) -> UInt64 { g.reduce(0) { $0 << 16 | UInt64($1) } }
        return Address(high: join(all[0..<4]), low: join(all[4..<8]))
    }

    public var description: String {
        if isV4 {
            return "\(low >> 24 & 255).\(low >> 16 & 255).\(low >> 8 & 255).\(low & 255)"
        }
        return [high >> 48, high >> 32, high >> 16, high, low >> 48, low >> 32, low >> 16, low]
            .map { String($0 & 0xffff, radix: 16) }.joined(separator: ":")
    }
}

/// Members minus exceptions; `any` holds all.
public struct AddressSet: Sendable, Equatable {
    public struct Block: Sendable, Equatable {
        var first: Address
        var last: Address
        func holds(_ a: Address) -> Bool {
            (a.high, a.low) >= (first.high, first.low) && (a.high, a.low) <= (last.high, last.low)
        }
    }
    var members: [Block] = []
    var exceptions: [Block] = []
    /// No member was named: all but the exceptions.
    var isAll = true

    public static let any = AddressSet()
    public var isAny: Bool { isAll && exceptions.isEmpty }

    public func holds(_ a: Address) -> Bool {
        (isAll || members.contains { $0.holds(a) }) && !exceptions.contains { $0.holds(a) }
    }

    static func parse(_ text: Substring, _ variables: RuleVariables, depth: Int = 0) throws(Failure) -> AddressSet {
        var result = AddressSet()
        for (isNegated, item) in try ListText.items(text, depth) {
            if item == "any" {
                if isNegated { throw Failure("rule-malformed", "'!any' holds no address") }
                result.members = []
                return result
            }
            if item.hasPrefix("[") || item.hasPrefix("$") {
                let inner: AddressSet
                if item.hasPrefix("$") {
                    guard let value = variables.addresses[String(item.dropFirst())] else {
                        throw Failure("rule-variable-unknown", "the variable \(item) has no value")
                    }
                    inner = try parse(value[...], variables, depth: depth + 1)
                } else {
                    inner = try parse(item, variables, depth: depth + 1)
                }
                result.add(inner, isNegated)
                continue
            }
            guard let block = block(item) else { throw Failure("rule-malformed", "'\(item)' is no address") }
            result.add(AddressSet(members: [block], exceptions: [], isAll: false), isNegated)
        }
        return result
    }

    private mutating func add(_ other: AddressSet, _ isNegated: Bool) {
        if isNegated {
            exceptions += other.members
            if other.isAll && other.exceptions.isEmpty {
                exceptions.append(Block(first: Address(high: 0, low: 0), last: Address(high: .max, low: .max)))
            }
            // A negated negation: the inner exceptions are what remains.
            if other.isAll && !other.exceptions.isEmpty {
                members += other.exceptions
                isAll = false
            }
        } else if other.isAll {
            exceptions += other.exceptions
        } else {
            members += other.members
            exceptions += other.exceptions
            isAll = false
        }
    }

    private static func block(_ text: Substring) -> Block? {
        if let slash = text.firstIndex(of: "/") {
            guard let base = Address(text[..<slash]) else { return nil }
            let rest = text[text.index(after: slash)...]
            var bits: Int
            if let mask = Address(rest), mask.isV4, base.isV4 {
                bits = (~UInt32(truncatingIfNeeded: mask.low)).leadingZeroBitCount
            } else {
                guard let n = Int(rest), n >= 0, n <= (base.isV4 ? 32 : 128) else { return nil }
                bits = n
            }
            if base.isV4 { bits += 96 }
            let highMask: UInt64 = bits >= 64 ? .max : bits == 0 ? 0 : .max << UInt64(64 - bits)
            let lowMask: UInt64 = bits <= 64 ? 0 : bits == 128 ? .max : .max << UInt64(128 - bits)
            return Block(
                first: Address(high: base.high & highMask, low: base.low & lowMask),
                last: Address(high: base.high | ~highMask, low: base.low | ~lowMask))
        }
        if let dash = text.firstIndex(of: "-") {
            guard let a = Address(text[..<dash]), let b = Address(text[text.index(after: dash)...]) else { return nil }
            return Block(first: a, last: b)
        }
        return Address(text).map { Block(first: $0, last: $0) }
    }
}

/// Ports: ranges minus exceptions.
public struct PortSet: Sendable, Equatable {
    var ranges: [ClosedRange<UInt16>] = []
    var exceptions: [ClosedRange<UInt16>] = []

    public static let any = PortSet()
    public var isAny: Bool { ranges.isEmpty && exceptions.isEmpty }

    public func holds(_ port: UInt16) -> Bool {
        (ranges.isEmpty || ranges.contains { $0.contains(port) }) && !exceptions.contains { $0.contains(port) }
    }

    static func parse(_ text: Substring, _ variables: RuleVariables, depth: Int = 0) throws(Failure) -> PortSet {
        var result = PortSet()
        for (isNegated, item) in try ListText.items(text, depth) {
            if item == "any" {
                if isNegated { throw Failure("rule-malformed", "'!any' holds no port") }
                continue
            }
            if item.hasPrefix("[") || item.hasPrefix("$") {
                var inner = item
                if item.hasPrefix("$") {
                    guard let value = variables.ports[String(item.dropFirst())] else {
                        throw Failure("rule-variable-unknown", "the variable \(item) has no value")
                    }
                    inner = value[...]
                }
                let set = try parse(inner, variables, depth: depth + 1)
                if isNegated {
                    result.exceptions += set.ranges
                    result.ranges += set.exceptions
                } else {
                    result.ranges += set.ranges
                    result.exceptions += set.exceptions
                }
                continue
            }
            guard let range = range(item) else { throw Failure("rule-malformed", "'\(item)' is no port") }
            if isNegated { result.exceptions.append(range) } else { result.ranges.append(range) }
        }
        return result
    }

    private static func range(_ text: Substring) -> ClosedRange<UInt16>? {
        guard let colon = text.firstIndex(of: ":") else { return UInt16(text).map { $0...$0 } }
        let a = text[..<colon], b = text[text.index(after: colon)...]
        guard let low = a.isEmpty ? 0 : UInt16(a), let high = b.isEmpty ? UInt16.max : UInt16(b), low <= high else { return nil }
        return low...high
    }

    public var text: String {
        if isAny { return "any" }
        func one(_ r: ClosedRange<UInt16>) -> String {
            r.lowerBound == r.upperBound ? "\(r.lowerBound)" : "\(r.lowerBound)-\(r.upperBound)"
        }
        return (ranges.map(one) + exceptions.map { "not " + one($0) }).joined(separator: ", ")
    }
}

/// What names in rule headers stand for.
public struct RuleVariables: Sendable {
    public var addresses: [String: String]
    public var ports: [String: String]

    /// Every group is any address: on a host, who is outside is known from the direction of the flow.
    public static let everywhere = RuleVariables(
        addresses: Dictionary(
            uniqueKeysWithValues: [
                "HOME_NET", "EXTERNAL_NET", "HTTP_SERVERS", "SMTP_SERVERS", "SQL_SERVERS", "DNS_SERVERS", "TELNET_SERVERS",
                "AIM_SERVERS", "DC_SERVERS", "DNP3_SERVER", "DNP3_CLIENT", "MODBUS_CLIENT", "MODBUS_SERVER", "ENIP_CLIENT",
                "ENIP_SERVER",
            ].map { ($0, "any") }),
        ports: [
            "HTTP_PORTS": "any", "SHELLCODE_PORTS": "!80", "ORACLE_PORTS": "1521", "SSH_PORTS": "22", "DNP3_PORTS": "20000",
            "MODBUS_PORTS": "502", "FILE_DATA_PORTS": "any", "FTP_PORTS": "21", "GENEVE_PORTS": "6081", "VXLAN_PORTS": "4789",
            "TEREDO_PORTS": "3544",
        ])
}

/// Lists in brackets, with negations.
enum ListText {
    private static let depthLimit = 8

    static func items(_ text: Substring, _ depth: Int) throws(Failure) -> [(isNegated: Bool, item: Substring)] {
        guard depth <= depthLimit else { throw Failure("rule-malformed", "lists nest deeper than \(depthLimit)") }
        var s = text.trimmed
        guard !s.isEmpty else { throw Failure("rule-malformed", "an empty list") }
        if s.hasPrefix("[") {
            guard s.hasSuffix("]") else { throw Failure("rule-malformed", "'\(s)' lacks its closing bracket") }
            s = s.dropFirst().dropLast()
        } else {
            return [one(s)]
        }
        var out: [(Bool, Substring)] = []
        var level = 0
        var start = s.startIndex
        for i in s.indices {
            switch s[i] {
            case "[": level += 1
            case "]": level -= 1
            case "," where level == 0:
                out.append(one(s[start..<i].trimmed))
                start = s.index(after: i)
            default: break
            }
        }
        guard level == 0 else { throw Failure("rule-malformed", "brackets of '\(text)' do not match") }
        out.append(one(s[start...].trimmed))
        guard out.allSatisfy({ !$0.1.isEmpty }) else { throw Failure("rule-malformed", "an empty item in '\(text)'") }
        return out
    }

    private static func one(_ s: Substring) -> (Bool, Substring) {
        s.hasPrefix("!") ? (true, s.dropFirst().trimmed) : (false, s)
    }
}

extension Substring {
    var trimmed: Substring {
        var s = self
        while let c = s.first, c == " " || c == "\t" || c == "\r" { s.removeFirst() }
        while let c = s.last, c == " " || c == "\t" || c == "\r" { s.removeLast() }
        return s
    }
}
