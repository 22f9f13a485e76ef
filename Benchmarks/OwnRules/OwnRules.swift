// Proves own rules against real servers: `relay` passes connections on through the engine and cuts one when a rule matches; `send`
// is the client. Both on loopback alone.

import ELF
import Foundation
import Interception
import ProcessControl
import VirtualPatch

@main struct OwnRules {
    static func main() {
        do {
            var words = Array(CommandLine.arguments.dropFirst())
            guard let verb = words.first else { throw usage }
            words.removeFirst()
            let options = try Options(words)
            switch verb {
            case "relay": try Relay(options).run()
            case "send": try Sender(options).run()
            default: throw usage
            }
        } catch let failure as Failure {
            complain("own-rules: \(failure.sentence) (\(failure.place))")
            exit(1)
        } catch {
            complain("own-rules: \(error)")
            exit(1)
        }
    }

    static var usage: Failure {
        Failure(
            "usage",
            "own-rules relay --rules FOLDER [--udp] --listen PORT --to PORT --as PORT; own-rules send [--udp] --port PORT [--lines] [--before HEX,…] [--wait MS] FILE…"
        )
    }

    static func complain(_ text: String) { FileHandle.standardError.write(Data((text + "\n").utf8)) }
    static func say(_ text: String) { FileHandle.standardOutput.write(Data((text + "\n").utf8)) }
}

struct Options {
    var values: [String: String] = [:]
    var flags: Set<String> = []
    var files: [String] = []

    init(_ words: [String]) throws {
        var rest = words[...]
        while let word = rest.popFirst() {
            if ["--udp", "--lines"].contains(word) {
                flags.insert(word)
            } else if word.hasPrefix("--") {
                guard let value = rest.popFirst() else { throw OwnRules.usage }
                values[word] = value
            } else {
                files.append(word)
            }
        }
    }

    func port(_ name: String) throws -> UInt16 {
        guard let port = values[name].flatMap({ UInt16($0) }) else { throw OwnRules.usage }
        return port
    }
}

/// What a server would see if the engine stood before it.
struct Relay {
    let rules: CompiledRules
    let isUDP: Bool
    let listening: Socket
    let upstream: UInt16
    /// The port that the rules know the service by.
    let known: UInt16

    init(_ options: Options) throws {
        let folder = options.values["--rules"] ?? "Rules"
        let names = try FileManager.default.subpathsOfDirectory(atPath: folder).sorted().filter {
            $0.hasSuffix(".rules") || $0.hasSuffix(".yaml")
        }
        let set = RuleSet.load(try names.map { RuleSet.File(name: $0, bytes: try RegularFile.read(folder + "/" + $0)) })
        if let refused = set.refused.first { throw refused }
        rules = try CompiledRules(set.rules)
        isUDP = options.flags.contains("--udp")
        upstream = try options.port("--to")
        known = try options.port("--as")
        listening = try Socket(isUDP: isUDP)
        try listening.listen(try options.port("--listen"))
    }

    func run() throws {
        OwnRules.say("listening")
        while true {
            if isUDP {
                try passDatagram()
            } else {
                let client = try listening.accept()
                Thread.detachNewThread { [self] in
                    do { try pass(client) } catch { OwnRules.complain("own-rules: \(error)") }
                }
            }
        }
    }

    private func engine(answers: Bool) throws -> Engine {
        var options = EngineOptions()
        options.enforces = true
        options.requestsOnly = !answers
        return try Engine(rules, options)
    }

    /// Says why the bytes must not go on; nil when they may. What cannot be inspected must not either.
    private func objection(_ outcome: Engine.Outcome) -> String? {
        for finding in outcome.findings {
            switch finding {
            case .alert(let a): return "blocked \(a.cves.joined(separator: ",")) by rule \(a.rule)"
            case .uninspectable(let u): return "blocked, uninspectable: \(u.reason.rawValue)"
            }
        }
        return outcome.verdict == .pass ? nil : "blocked"
    }

    private func pass(_ client: Socket) throws {
        let server = try Socket(isUDP: false)
        try server.connect(upstream)
        var conversation = Conversation(try engine(answers: true), .tcp, serverPort: known)
        while true {
            let ready = Socket.wait([client, server], milliseconds: 30_000)
            guard !ready.isEmpty else { break }
            for index in ready {
                let fromClient = index == 0
                let bytes = (fromClient ? client : server).receive()
                let outcome = bytes.isEmpty ? conversation.close() : conversation.send(bytes, toServer: fromClient)
                if let objection = objection(outcome) {
                    OwnRules.say(objection)
                    client.reset()
                    server.reset()
                    return
                }
                guard !bytes.isEmpty, (fromClient ? server : client).send(bytes) else {
                    if fromClient {
                        // The client has said all; the server may still answer.
                        server.finishSending()
                        while Socket.wait([server], milliseconds: 3_000) == [0] {
                            let rest = server.receive()
                            guard !rest.isEmpty, client.send(rest) else { break }
                        }
                    }
                    client.close()
                    server.close()
                    return
                }
            }
        }
        client.close()
        server.close()
    }

    private func passDatagram() throws {
        let (bytes, from) = listening.receiveFrom()
        guard !bytes.isEmpty else { return }
        var conversation = Conversation(try engine(answers: true), .udp, serverPort: known)
        if let objection = objection(conversation.send(bytes)) { return OwnRules.say(objection) }
        let server = try Socket(isUDP: true)
        try server.connect(upstream)
        _ = server.send(bytes)
        if Socket.wait([server], milliseconds: 700) == [0] { listening.sendTo(server.receive(), from) }
        server.close()
    }
}

/// Sends files as one client does, and prints what comes back.
struct Sender {
    let options: Options
    init(_ options: Options) { self.options = options }

    func run() throws {
        for file in options.files {
            let bytes = try RegularFile.read(file)
            let isUDP = options.flags.contains("--udp")
            let socket = try Socket(isUDP: isUDP)
            try socket.connect(try options.port("--port"))
            var answer: [UInt8] = []
            if options.flags.contains("--lines") {
                answer += gather(socket)
                for line in bytes.split(separator: 10, omittingEmptySubsequences: false) where !line.isEmpty {
                    guard socket.send(Array(line) + [10]) else { break }
                    answer += gather(socket)
                }
            } else {
                for part in pieces(bytes) {
                    guard socket.send(part) else { break }
                    answer += gather(socket)
                }
            }
            socket.close()
            FileHandle.standardOutput.write(Data(answer))
        }
    }

    /// The file, cut in front of each occurrence of what `--before` gives in hexadecimal, comma-separated: a pause is made there.
    private func pieces(_ bytes: [UInt8]) -> [[UInt8]] {
        let marks = (options.values["--before"] ?? "").split(separator: ",").map { word in
            let digits = Array(word.utf8)
            return stride(from: 0, to: digits.count - digits.count % 2, by: 2).compactMap {
                UInt8(String(decoding: digits[$0..<($0 + 2)], as: UTF8.self), radix: 16)
            }
        }
        guard !marks.isEmpty else { return [bytes] }
        var out: [[UInt8]] = [[]]
        for i in bytes.indices {
            if out != [[]], marks.contains(where: { bytes[i...].starts(with: $0) }) { out.append([]) }
            out[out.count - 1].append(bytes[i])
        }
        return out
    }

    /// What comes until nothing has come for a while.
    private func gather(_ socket: Socket) -> [UInt8] {
        var all: [UInt8] = []
        let patience = Int32(options.values["--wait"] ?? "") ?? 500
        while Socket.wait([socket], milliseconds: patience) == [0] {
            let part = socket.receive()
            guard !part.isEmpty, all.count < 1 << 20 else { break }
            all += part
        }
        return all
    }
}
