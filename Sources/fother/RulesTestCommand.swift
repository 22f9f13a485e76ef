// `fother rules test`: what the rules say about requests in files and about a capture.

import ArgumentParser
import ELF
import Foundation
import Interception
import ProcessControl
import VirtualPatch

struct RulesTestCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "test", abstract: "Say which rules match requests in files, or the traffic of a capture.")

    static let captureLimitBytes = 2 << 30

    @Option(help: "Rule files, or folders of them; without any, Fother's own rules.", completion: .file()) var rules: [String] = []
    @Option(help: "A file with what one client sends on one connection, from the request line on.", completion: .file())
    var request: [String] = []
    @Option(
        help: "A file with what one client sends on one TCP connection, of any protocol; --port says to which port.", completion: .file())
    var stream: [String] = []
    @Option(help: "A file with one UDP datagram from a client; --port says to which port.", completion: .file())
    var datagram: [String] = []
    @Option(help: "The server's port for --stream and --datagram.") var port: UInt16?
    @Option(help: "A capture, pcap or pcapng.", completion: .file()) var pcap: [String] = []
    @Flag(help: "Judge only the view that the rule language specifies.") var strict = false
    @Option(help: "Whose reading of paths to assume: generic, apache, iis or nginx.") var profile = "generic"
    @Flag(help: "Print JSON, schema fother.rulestest/1.") var json = false

    struct FindingValue: Encodable {
        var kind: String
        var rule: String?
        var cves: [String] = []
        var message: String?
        var action: String?
        var buffer: String?
        var offset: Int?
        var view: Int?
        var reason: String?
        var flow: String
        var request: Int?
        var packet: Int

        init(_ finding: Finding) {
            switch finding {
            case .alert(let a):
                kind = "match"
                rule = a.rule
                cves = a.cves
                message = a.message
                action = a.action.rawValue
                buffer = a.buffer
                offset = a.offset
                view = a.view
                flow = a.flow.description
                request = a.request
                packet = a.packet
            case .uninspectable(let u):
                kind = "uninspectable"
                rule = u.rule
                reason = u.reason.rawValue
                flow = u.flow.description
                request = u.request
                packet = u.packet
            }
        }
    }

    struct Input: Encodable {
        var file: String
        var verdict: String
        var requests: Int
        /// Connections whose content is encrypted: nothing was looked for in them.
        var encrypted: EncryptedValue
        var findings: [FindingValue]
    }

    struct EncryptedValue: Encodable {
        var tls: Int
        var ssh: Int
        var quic: Int

        init(_ engine: Engine) {
            tls = engine.counters.encrypted.tls
            ssh = engine.counters.encrypted.ssh
            quic = engine.counters.encrypted.quic
        }
        var text: String? {
            let kinds = [(tls, "TLS"), (ssh, "SSH"), (quic, "QUIC")].filter { $0.0 > 0 }.map { "\($0.0) \($0.1)" }
            return kinds.isEmpty ? nil : kinds.joined(separator: ", ")
        }
    }

    struct Report: Encodable {
        var schema = "fother.rulestest/1"
        var loaded: Int
        var total: Int
        var inputs: [Input]
    }

    func run() throws {
        try Program.run {
            guard !request.isEmpty || !pcap.isEmpty || !stream.isEmpty || !datagram.isEmpty else {
                throw Failure(
                    "nothing-to-test", "no request, stream, datagram or capture is named",
                    remedy: "Give --request FILE, --stream FILE --port N, --datagram FILE --port N or --pcap FILE.")
            }
            guard port != nil || (stream.isEmpty && datagram.isEmpty) else {
                throw Failure("port-missing", "a stream or a datagram goes to a port of the server", remedy: "Give --port N.")
            }
            guard let profile = ServerProfile(name: profile) else {
                throw Failure(
                    "profile-unknown", "there is no server profile of that name", at: profile, remedy: "generic, apache, iis, nginx")
            }
            let set = RuleSet.load(try RuleFiles.read(rules))
            var options = EngineOptions()
            options.isStrict = strict
            options.profile = profile
            let compiled = try CompiledRules(set.rules)
            var inputs: [Input] = []
            for path in request {
                var options = options
                options.requestsOnly = true
                let engine = try Engine(compiled, options)
                let outcome = engine.inspect(request: try RegularFile.read(path))
                inputs.append(
                    Input(
                        file: path, verdict: Self.verdict(outcome.findings, outcome.verdict), requests: engine.counters.requests,
                        encrypted: EncryptedValue(engine),
                        findings: outcome.findings.map(FindingValue.init)))
            }
            options.requestsOnly = true
            for (paths, transport) in [(stream, Conversation.Transport.tcp), (datagram, .udp)] {
                for path in paths { inputs.append(try converse(path, transport, try Engine(compiled, options))) }
            }
            options.requestsOnly = false
            for path in pcap { inputs.append(try replay(path, try Engine(compiled, options))) }
            if json {
                try Output.json(Report(loaded: set.rules.count, total: set.total, inputs: inputs))
            } else {
                for input in inputs { show(input) }
                Output.line(Theme.quiet("\(set.rules.count) of \(set.total) rules loaded"))
            }
            return inputs.contains { $0.verdict == "match" || $0.verdict == "uninspectable" } ? Exit.actionNeeded : Exit.done
        }
    }

    private func converse(_ path: String, _ transport: Conversation.Transport, _ engine: Engine) throws(Failure) -> Input {
        var conversation = Conversation(engine, transport, serverPort: port ?? 0)
        var outcome = conversation.send(try RegularFile.read(path))
        outcome.add(conversation.close())
        outcome.findings += engine.finish().findings
        return Input(
            file: path, verdict: Self.verdict(outcome.findings, outcome.verdict), requests: engine.counters.requests,
            encrypted: EncryptedValue(engine),
            findings: outcome.findings.map(FindingValue.init))
    }

    private func replay(_ path: String, _ engine: Engine) throws(Failure) -> Input {
        let capture = try Capture(try RegularFile.read(path, limitBytes: Self.captureLimitBytes), name: path)
        var findings: [Finding] = []
        var verdict = Verdict.pass
        let bytes = capture.bytes
        for record in capture.records {
            guard let packet = record.packet else { continue }
            let outcome = engine.inspect(packet: bytes.span.extracting(packet), at: record.time)
            findings += outcome.findings
            if verdict == .pass { verdict = outcome.verdict }
        }
        findings += engine.finish().findings
        return Input(
            file: path, verdict: Self.verdict(findings, verdict), requests: engine.counters.requests, encrypted: EncryptedValue(engine),
            findings: findings.map(FindingValue.init))
    }

    /// `match` before `uninspectable` before `pass`.
    private static func verdict(_ findings: [Finding], _ verdict: Verdict) -> String {
        if verdict != .pass || findings.contains(where: { if case .alert = $0 { true } else { false } }) { return "match" }
        return findings.isEmpty ? "pass" : "uninspectable"
    }

    private func show(_ input: Input) {
        let mark =
            switch input.verdict {
            case "match": Theme.exposed("match")
            case "uninspectable": Theme.review("uninspectable")
            default: Theme.good("pass")
            }
        Output.line("\(mark)  \(Theme.strong(input.file))  \(Theme.quiet("\(input.requests) requests"))")
        if let kinds = input.encrypted.text { Output.line(Theme.review("  encrypted, not looked into: \(kinds)")) }
        for f in input.findings {
            var text =
                "  "
                + (f.kind == "match" ? "rule \(f.rule ?? "")" : "uninspectable: \(f.reason ?? "")" + (f.rule.map { ", rule \($0)" } ?? ""))
            if !f.cves.isEmpty { text += "  " + f.cves.joined(separator: " ") }
            if let message = f.message { text += "  " + message }
            Output.line(text)
            var place = "    " + f.flow + (f.request.map { ", request \($0)" } ?? ", packet \(f.packet)")
            if let buffer = f.buffer { place += ", in \(buffer)" + (f.offset.map { " at byte \($0)" } ?? "") }
            if let view = f.view, view > 0 { place += view == 1 ? ", parameters decoded" : ", decoded twice" }
            Output.line(Theme.quiet(place))
        }
    }
}
