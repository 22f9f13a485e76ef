// Finds public rules, exploit tests and benign requests beside the package; tests that need them are skipped where they are absent.

import Foundation
import Testing
import VirtualPatch
import Yams

enum PublicData {
    static let package = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent()
    /// Beside the package, or beside the folder that the package's worktree stands in.
    static let root: String? = ["../shared/data", "../../shared/data"].map { package.path + "/" + $0 }
        .first { FileManager.default.fileExists(atPath: $0) }

    static var isThere: Bool { root != nil }
    static let absence: Comment = "the public rules and requests (../shared/data) are not there"

    static func path(_ name: String) -> String { (root ?? "") + "/" + name }

    static func read(_ name: String) throws -> [UInt8] { Array(try Data(contentsOf: URL(fileURLWithPath: path(name)))) }

    static func names(_ folder: String) throws -> [String] {
        try FileManager.default.contentsOfDirectory(atPath: path(folder)).sorted()
    }

    static func etOpen() throws -> RuleSet.File {
        RuleSet.File(name: "et.rules", bytes: try read("et-open/cve-server-public.rules"))
    }

    static func crowdSec() throws -> [RuleSet.File] {
        try names("crowdsec-hub/rules").filter { $0.hasSuffix(".yaml") }
            .map { RuleSet.File(name: $0, bytes: try read("crowdsec-hub/rules/" + $0)) }
    }
}

/// One exploit test of the hub: its requests, and for each whether it must be blocked; nil: at least one of them must.
struct ExploitTest {
    var name: String
    var rules: [String]
    var requests: [(bytes: [UInt8], mustBlock: Bool?)]

    init(_ name: String) throws {
        self.name = name
        let folder = "crowdsec-hub/tests/" + name
        let config = try Self.yaml(folder + "/config.yaml")
        rules = (config["appsec-rules"]?.sequence ?? []).compactMap { $0.string.map { ($0 as NSString).lastPathComponent } }
        let template = try Self.yaml(folder + "/" + (config["nuclei_template"]?.string ?? ""))
        var variables: [String: String] = [:]
        for (key, value) in template["variables"]?.mapping ?? [:] { variables[key.string ?? ""] = value.string ?? "" }
        var texts: [String] = []
        var mustBlock: [Bool?] = []
        for http in template["http"]?.sequence ?? [] {
            let first = texts.count
            for raw in http["raw"]?.sequence ?? [] { texts.append(raw.string ?? "") }
            for path in http["path"]?.sequence ?? [] {
                let target = (path.string ?? "").replacingOccurrences(of: "{{BaseURL}}", with: "").replacingOccurrences(
                    of: " ", with: "%20")
                var text = "\(http["method"]?.string ?? "GET") \(target) HTTP/1.1\nHost: {{Hostname}}\n"
                for (key, value) in http["headers"]?.mapping ?? [:] { text += "\(key.string ?? ""): \(value.string ?? "")\n" }
                texts.append(text + "\n" + (http["body"]?.string ?? ""))
            }
            let count = texts.count - first
            var expected: [Bool?] = Array(repeating: count == 1 ? true : nil, count: count)
            for matcher in http["matchers"]?.sequence ?? [] {
                for line in matcher["dsl"]?.sequence ?? [] {
                    let words = (line.string ?? "").split(separator: " ")
                    guard words.count >= 3, let number = words[0].split(separator: "_").last.flatMap({ Int($0) }) else { continue }
                    if number >= 1, number <= expected.count { expected[number - 1] = words[2] == "403" }
                }
            }
            mustBlock += expected
        }
        requests = zip(texts, mustBlock).map { (Self.request(Self.substitute($0, variables)), $1) }
    }

    private static func yaml(_ path: String) throws -> Node {
        try Yams.compose(yaml: String(decoding: try PublicData.read(path), as: UTF8.self)) ?? Node("")
    }

    /// Variables of the template language; functions give a value of the right kind.
    private static func substitute(_ text: String, _ variables: [String: String]) -> String {
        var out = text
        for (key, value) in variables { out = out.replacingOccurrences(of: "{{\(key)}}", with: value) }
        let fixed = [
            "{{Hostname}}": "localhost", "{{RootURL}}": "http://localhost", "{{BaseURL}}": "http://localhost", "{{randstr}}": "abcdefgh",
            "{{base64(\"echo hello\")}}": "ZWNobyBoZWxsbw==",
            "{{generate_java_gadget(\"dns\", \"http://foobar.com\", \"base64\")}}": "rO0ABXNyABFqYXZhLnV0aWwuSGFzaE1hcA==",
        ]
        for (key, value) in fixed { out = out.replacingOccurrences(of: key, with: value) }
        out = out.replacing(/\{\{rand_[a-z]+\([^)]*\)\}\}/, with: "123456")
        return out
    }

    /// Line ends of the head as HTTP has them, and the body's length where it is missing.
    private static func request(_ text: String) -> [UInt8] {
        var lines = text.split(separator: "\n", omittingEmptySubsequences: false).map(String.init)
        while let first = lines.first, first.isEmpty || first.hasPrefix("@") { lines.removeFirst() }
        let empty = lines.firstIndex { $0.isEmpty || $0 == "\r" } ?? lines.count
        var head = lines[..<empty].map { $0.hasSuffix("\r") ? String($0.dropLast()) : $0 }
        var body = empty < lines.count ? lines[(empty + 1)...].joined(separator: "\n") : ""
        let isMultipart = head.contains { $0.lowercased().hasPrefix("content-type: multipart") }
        if isMultipart {
            body = body.replacingOccurrences(of: "\r\n", with: "\n").replacingOccurrences(of: "\n", with: "\r\n")
        } else {
            while body.hasSuffix("\n") { body.removeLast() }
        }
        head.removeAll { $0.lowercased().hasPrefix("content-length:") }
        if !body.isEmpty { head.append("Content-Length: \(body.utf8.count)") }
        return Array((head.joined(separator: "\r\n") + "\r\n\r\n" + body).utf8)
    }
}

/// One request of the benign collection.
struct BenignRequest: Decodable {
    var name: String
    var method: String?
    var uri: String?
    var version: String?
    var headers: [String: Text]?

    /// Values that the collection writes as text or as numbers.
    struct Text: Decodable {
        var text: String
        init(from decoder: any Decoder) throws {
            let value = try decoder.singleValueContainer()
            if let string = try? value.decode(String.self) { text = string } else { text = String(try value.decode(Int.self)) }
        }
    }
    var data: String?
    var encoded_request: String?

    var bytes: [UInt8] {
        if let encoded = encoded_request, let data = Data(base64Encoded: encoded) { return Array(data) }
        var text = "\(method ?? "GET") \(uri ?? "/") \(version ?? "HTTP/1.1")\r\n"
        for (key, value) in (headers ?? [:]).sorted(by: { $0.key < $1.key }) where key.lowercased() != "content-length" {
            text += "\(key): \(value.text)\r\n"
        }
        if let data { text += "Content-Length: \(data.utf8.count)\r\n" }
        return Array((text + "\r\n" + (data ?? "")).utf8)
    }
}
