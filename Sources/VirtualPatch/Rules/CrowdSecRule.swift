// Turns CrowdSec's virtual-patching YAML into the internal form: zones, variables, transforms and matches.

import ELF
import Yams

/// Reads one file, which is one rule: the entries under `rules` are alternatives.
struct CrowdSecRuleReader {
    static let fileLimitBytes = 1 << 20
    private static let depthLimit = 16
    private static let itemLimit = 512

    private let file: String
    private let canDetectInjection: Bool

    static func read(_ bytes: [UInt8], file: String, canDetectInjection: Bool) throws(Failure) -> Rule {
        guard bytes.count <= fileLimitBytes else {
            throw Failure("rule-malformed", "the file is longer than \(fileLimitBytes) bytes", at: file)
        }
        guard let text = String(validating: bytes, as: UTF8.self) else {
            throw Failure("rule-malformed", "the file is not UTF-8", at: file)
        }
        let root: Node
        do {
            guard let node = try Yams.compose(yaml: text) else { throw Failure("rule-malformed", "the file is empty", at: file) }
            root = node
        } catch let failure as Failure {
            throw failure
        } catch let error as YamlError {
            throw Failure("rule-malformed", "no YAML: \(String(describing: error).firstLine)", at: file)
        } catch {
            throw Failure("rule-malformed", "no YAML", at: file)
        }
        return try CrowdSecRuleReader(file: file, canDetectInjection: canDetectInjection).rule(root)
    }

    private func place(_ node: Node) -> String { "\(file):\(node.mark?.line ?? 1)" }

    private func rule(_ root: Node) throws(Failure) -> Rule {
        guard let map = root.mapping else { throw Failure("rule-malformed", "no mapping at the top", at: place(root)) }
        var rule = Rule(id: "", place: "\(file):1")
        rule.action = .drop
        rule.traffic.application = .http
        rule.flow.toServer = true
        for (key, value) in map {
            switch key.string {
            case "name": rule.id = String((value.string ?? "").split(separator: "/").last ?? "")
            case "description": if rule.message.isEmpty { rule.message = value.string ?? "" }
            case "labels": labels(value, &rule)
            case "rules":
                rule.place = place(value)
                guard let items = value.sequence, !items.isEmpty else {
                    throw Failure("rule-malformed", "'rules' is no list", at: place(value))
                }
                var alternatives: [Condition] = []
                for item in items { alternatives.append(try condition(item, depth: 0)) }
                rule.condition = alternatives.count == 1 ? alternatives[0] : .any(alternatives)
            case "references", "author", "tags", "severity", "debug", "format": break
            default: throw Failure("rule-keyword-unsupported", "the key '\(key.string ?? "?")' is not supported", at: place(key))
            }
        }
        guard !rule.id.isEmpty else { throw Failure("rule-malformed", "no name", at: file) }
        guard rule.condition != .all([]) else { throw Failure("rule-malformed", "no rules", at: file) }
        return rule
    }

    private func labels(_ node: Node, _ rule: inout Rule) {
        if let label = node["label"]?.string { rule.message = label }
        for item in node["classification"]?.sequence ?? [] {
            guard let text = item.string else { continue }
            if text.lowercased().hasPrefix("cve.") {
                let id = text.dropFirst(4).uppercased()
                if !rule.cves.contains(id) { rule.cves.append(id) }
            } else {
                rule.tags.append(text)
            }
        }
        for item in node["references"]?.sequence ?? [] { if let text = item.string { rule.references.append(text) } }
    }

    private func condition(_ node: Node, depth: Int) throws(Failure) -> Condition {
        guard depth <= Self.depthLimit else {
            throw Failure("rule-malformed", "conditions nest deeper than \(Self.depthLimit)", at: place(node))
        }
        guard let map = node.mapping else { throw Failure("rule-malformed", "a condition is a mapping", at: place(node)) }
        var zones: [String] = [], variables: [String] = [], transforms: [String] = []
        var match: Node?
        var group: Condition?
        for (key, value) in map {
            switch key.string {
            case "and", "or":
                guard group == nil, let items = value.sequence, !items.isEmpty, items.count <= Self.itemLimit else {
                    throw Failure("rule-malformed", "'\(key.string ?? "")' takes a list", at: place(value))
                }
                var inner: [Condition] = []
                for item in items { inner.append(try condition(item, depth: depth + 1)) }
                group = key.string == "and" ? .all(inner) : .any(inner)
            case "zones": zones = try strings(value)
            case "variables": variables = try strings(value)
            case "transform": transforms = try strings(value)
            case "match": match = value
            case "name": break
            case "body_type":
                guard ["json", "urlencoded", "multipart"].contains(value.string ?? "") else { throw unsupported(key, value) }
            default: throw unsupported(key, value)
            }
        }
        if let group {
            guard match == nil, zones.isEmpty else {
                throw Failure("rule-malformed", "a group and a match in one condition", at: place(node))
            }
            return group
        }
        guard let match, !zones.isEmpty else { throw Failure("rule-malformed", "a condition needs zones and a match", at: place(node)) }
        return try test(zones, variables, transforms, match, node)
    }

    private func unsupported(_ key: Node, _ value: Node) -> Failure {
        Failure("rule-keyword-unsupported", "the key '\(key.string ?? "?")' is not supported", at: place(key))
    }

    private func strings(_ node: Node) throws(Failure) -> [String] {
        guard let items = node.sequence, items.count <= Self.itemLimit else { throw Failure("rule-malformed", "no list", at: place(node)) }
        var out: [String] = []
        for item in items {
            guard let text = item.scalar?.string else { throw Failure("rule-malformed", "no text", at: place(item)) }
            out.append(text)
        }
        return out
    }

    private static let transformNames: [String: Transform] = [
        "lowercase": .lowercase, "uppercase": .uppercase, "urldecode": .urlDecode, "b64decode": .base64Decode,
        "hexdecode": .hexDecode, "trim": .trim, "normalizepath": .normalizePath, "normalize_path": .normalizePath,
        "length": .length, "count": .count,
    ]

    private func test(
        _ zones: [String], _ variables: [String], _ transforms: [String], _ match: Node, _ node: Node
    ) throws(Failure) -> Condition {
        var steps: [Transform] = []
        for name in transforms {
            guard let step = Self.transformNames[name.lowercased()] else {
                throw Failure("rule-option-unsupported", "the transform '\(name)' is not supported", at: place(node))
            }
            steps.append(step)
        }
        let step = try self.match(match)
        var selectors: [Selector?] = []
        for name in variables {
            if name.count > 2, name.hasPrefix("/"), name.hasSuffix("/") {
                var p = Pattern(source: String(name.dropFirst().dropLast()))
                p.ignoresCase = true
                do { try Regex.check(p) } catch {
                    throw Failure(error.code, error.sentence, at: place(node))
                }
                selectors.append(.pattern(p))
            } else {
                selectors.append(.name(name.lowercased()))
            }
        }
        if selectors.isEmpty { selectors = [nil] }
        var tests: [Condition] = []
        for name in zones {
            guard let zone = Buffer.zones[name] else {
                throw Failure("rule-option-unsupported", "the zone '\(name)' is not supported", at: place(node))
            }
            let usesSelectors =
                zone.hasInstances && zone != .zoneArgumentNames && zone != .zoneBodyArgumentNames && zone != .zoneHeaderNames
            for selector in usesSelectors ? selectors : [nil] {
                tests.append(.test(BufferTest(buffer: zone, selector: selector, transforms: steps, matches: [step])))
            }
        }
        return tests.count == 1 ? tests[0] : .any(tests)
    }

    private func match(_ node: Node) throws(Failure) -> Match {
        guard let map = node.mapping else { throw Failure("rule-malformed", "a match is a mapping", at: place(node)) }
        var type = "", value = "", isNegated = false
        for (key, item) in map {
            switch key.string {
            case "type": type = item.scalar?.string ?? ""
            case "value": value = item.scalar?.string ?? ""
            case "not": isNegated = item.bool ?? false
            default: throw unsupported(key, item)
            }
        }
        func text() throws(Failure) -> Content {
            guard !value.isEmpty else { throw Failure("rule-malformed", "the value is empty", at: place(node)) }
            return Content(bytes: Array(value.utf8), isNegated: isNegated)
        }
        func number(_ kind: SizeTest.Kind) throws(Failure) -> Match {
            guard let n = Int(value), !isNegated else { throw Failure("rule-malformed", "'\(value)' is no number", at: place(node)) }
            return .number(SizeTest(kind: kind, low: n))
        }
        switch type {
        case "contains": return .content(try text())
        case "equals":
            if value.isEmpty && !isNegated { return .size(SizeTest(kind: .equal, low: 0)) }
            var c = try text()
            c.startsBuffer = true
            c.endsBuffer = true
            return .content(c)
        case "startsWith":
            var c = try text()
            c.startsBuffer = true
            return .content(c)
        case "endsWith":
            var c = try text()
            c.endsBuffer = true
            return .content(c)
        case "regex":
            var p = Pattern(source: value, isNegated: isNegated)
            p.dotMatchesNewline = true
            p.isMultiline = true
            do { try Regex.check(p) } catch { throw Failure(error.code, error.sentence, at: place(node)) }
            return .pattern(p)
        case "gt": return try number(.more)
        case "lt": return try number(.less)
        case "gte", "ge": return try number(.moreOrEqual)
        case "lte", "le": return try number(.lessOrEqual)
        case "libinjectionSQL", "libinjectionXSS":
            guard !isNegated else { throw Failure("rule-option-unsupported", "a negated \(type) is not supported", at: place(node)) }
            guard canDetectInjection else {
                throw Failure(
                    "rule-needs-libinjection", "\(type) needs libinjection, which is not on this host", at: place(node),
                    remedy: "Install libmodsecurity3.")
            }
            return .injection(type == "libinjectionSQL" ? .sql : .script)
        default: throw Failure("rule-option-unsupported", "the match type '\(type)' is not supported", at: place(node))
        }
    }
}

extension String {
    var firstLine: Substring { split(separator: "\n", maxSplits: 1).first ?? "" }
}
