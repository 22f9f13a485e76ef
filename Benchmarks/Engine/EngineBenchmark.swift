// Times the engine on generated captures with given rules, beside the bare scan of the same bytes for the same literals.

import ELF
import Foundation
import VirtualPatch

/// `bench-engine [--rounds N] [--megabytes N] [--only load,requests,uploads,inline,flows] RULES…`
@main
struct EngineBenchmark {
    var rounds = 5
    var megabytes = 256
    var only: Set<String> = []
    var rules: [String] = []

    static func main() {
        do {
            var benchmark = EngineBenchmark()
            try benchmark.read(Array(CommandLine.arguments.dropFirst()))
            try benchmark.run()
        } catch {
            FileHandle.standardError.write(Data("bench-engine: \(error)\n".utf8))
            exit(1)
        }
    }

    mutating func read(_ words: [String]) throws(Failure) {
        var i = 0
        while i < words.count {
            guard words[i].hasPrefix("--") else {
                rules.append(words[i])
                i += 1
                continue
            }
            guard i + 1 < words.count else { throw Failure("usage", "\(words[i]) wants a value") }
            switch (words[i], Int(words[i + 1])) {
            case ("--rounds", let n?) where n > 0: rounds = n
            case ("--megabytes", let n?) where n > 0: megabytes = n
            case ("--only", _): only = Set(words[i + 1].split(separator: ",").map(String.init))
            default: throw Failure("usage", "\(words[i]) \(words[i + 1]) is not understood")
            }
            i += 2
        }
    }

    private func wants(_ part: String) -> Bool { only.isEmpty || only.contains(part) }

    func run() throws {
        let compiled = try load()
        if wants("requests") {
            let traffic = Traffic.browsing(megabytes << 20)
            let result = try compare("ordinary requests, \(traffic.requests) on keep-alive connections", traffic, compiled)
            let each = result.seconds / Double(traffic.requests) * 1e6
            print(String(format: "  %.2f us a request of %d bytes", each, traffic.payloadBytes / traffic.requests))
            bar("15 us an ordinary request", each <= 15)
        }
        if wants("uploads") {
            for (name, size) in [("segments of 1,448 bytes", 1_448), ("segments of 32 KiB", 32 << 10)] {
                let traffic = Traffic.uploads(megabytes << 20, segmentBytes: size)
                let result = try compare("uploads of 8 MiB in \(name)", traffic, compiled)
                bar("within 4 times the bare scan", result.seconds <= 4 * result.scan)
            }
        }
        if wants("inline") { try inline(compiled) }
        if wants("flows") { try idleFlows(compiled) }
    }

    private func load() throws -> CompiledRules {
        let before = Memory.peak
        let clock = ContinuousClock()
        var loaded = RuleSet()
        var compiled: CompiledRules?
        let time = try clock.measure {
            let files = try rules.map { RuleSet.File(name: $0, bytes: Array(try Data(contentsOf: URL(fileURLWithPath: $0)))) }
            loaded = RuleSet.load(files)
            compiled = try CompiledRules(loaded.rules)
        }
        guard let compiled else { throw Failure("usage", "no rules") }
        let megabytes = Memory.peak >> 20
        print(
            "\(loaded.rules.count) of \(loaded.total) rules loaded and compiled in \(time), peak \(megabytes) MiB (\(before >> 20) before)")
        bar("1 s to load", time <= .seconds(1))
        bar("200 MB to load", megabytes <= 190)
        return compiled
    }

    /// Medians of whole runs, the engine and the bare scan in turns.
    private func compare(_ name: String, _ traffic: Traffic, _ compiled: CompiledRules) throws -> (seconds: Double, scan: Double) {
        var options = EngineOptions()
        options.requestsOnly = true
        options.verifiesChecksums = false
        let scanner = try LiteralScan(compiled)
        let bytes = traffic.bytes.span
        var times: [Double] = [], scans: [Double] = []
        var counters = Engine.Counters()
        for _ in 0..<rounds {
            let engine = try Engine(compiled, options)
            times.append(
                Self.cpu {
                    for (i, range) in traffic.packets.enumerated() {
                        _ = engine.inspect(packet: bytes.extracting(range), at: Instant(nanoseconds: UInt64(i) * 1_000))
                    }
                    _ = engine.finish()
                })
            counters = engine.counters
            var hits = 0
            scans.append(Self.cpu { for range in traffic.payloads { hits += scanner.count(in: bytes.extracting(range)) } })
        }
        let seconds = Self.median(times), scan = Self.median(scans), megabytes = Double(traffic.payloadBytes) / 1e6
        print("\(name): \(traffic.bytes.count >> 20) MiB, \(traffic.packets.count) packets")
        print(
            String(
                format: "  engine %.0f MB/s, bare scan for %d literals %.0f MB/s: %.2f times", megabytes / seconds, scanner.literalCount,
                megabytes / scan, seconds / scan))
        print("  \(counters.requests) requests judged, \(counters.alerts) alerts, \(counters.uninspectable) uninspectable")
        return (seconds, scan)
    }

    /// The filter that holds packets back, beside the engine that only looks: what it costs to keep, compare and decide.
    private func inline(_ compiled: CompiledRules) throws {
        for (name, traffic) in [
            ("ordinary requests", Traffic.browsing(megabytes << 20, isAnswered: true)),
            ("uploads in segments of 32 KiB", Traffic.uploads(megabytes << 20, segmentBytes: 32 << 10, isAnswered: true)),
        ] {
            let bytes = traffic.bytes.span
            var options = FilterOptions()
            options.ports = [PortPolicy(port: 80, transport: 6)]
            var inline: [Double] = [], looking: [Double] = []
            var counters = FilterCounters()
            for _ in 0..<rounds {
                let filter = try PacketFilter(compiled, options)
                inline.append(
                    Self.cpu {
                        for (i, range) in traffic.packets.enumerated() {
                            let packet = bytes.extracting(range)
                            _ = filter.judge(
                                packet, wireBytes: range.count, isInbound: packet[19] == 1, isChecksumVerified: true, wasSeen: true,
                                at: Instant(nanoseconds: UInt64(i) * 1_000))
                        }
                    })
                counters = filter.counters
                var engineOptions = EngineOptions()
                engineOptions.requestsOnly = true
                engineOptions.verifiesChecksums = false
                let engine = try Engine(compiled, engineOptions)
                looking.append(
                    Self.cpu {
                        for (i, range) in traffic.packets.enumerated() {
                            _ = engine.inspect(packet: bytes.extracting(range), at: Instant(nanoseconds: UInt64(i) * 1_000))
                        }
                    })
            }
            let seconds = Self.median(inline)
            print(
                String(
                    format: "inline, %@: %.2f us a request, %.2f s/GB, %.2f times the engine alone", name,
                    seconds / Double(traffic.requests) * 1e6, seconds / Double(traffic.payloadBytes) * 1e9,
                    seconds / Self.median(looking)))
            print("  \(counters.packets) packets, \(counters.replies) replies, \(counters.blocked) blocked, \(counters.refused) refused")
        }
    }

    /// Connections that are open and silent, after a request each.
    private func idleFlows(_ compiled: CompiledRules) throws {
        var options = EngineOptions()
        options.requestsOnly = true
        options.verifiesChecksums = false
        let count = 1_000_000
        let engine = try Engine(compiled, options)
        let before = Memory.now
        for n in 0..<count {
            var traffic = Traffic()
            traffic.skip(to: UInt32(n))
            var stream = traffic.open()
            traffic.send(&stream, Traffic.ordinary(n), 1_448)
            for range in traffic.packets {
                _ = engine.inspect(packet: traffic.bytes.span.extracting(range), at: Instant(nanoseconds: 1_000_000_000))
            }
        }
        let megabytes = max(0, Memory.now - before) >> 20
        print("\(engine.flowCount) idle connections after a request each: \(megabytes) MiB")
        bar("1 GB for a million idle flows", megabytes <= 953 && engine.flowCount == count)
    }

    private func bar(_ name: String, _ isMet: Bool) { print("  bar: \(name): \(isMet ? "met" : "MISSED")") }

    static func median(_ times: [Double]) -> Double { times.sorted()[times.count / 2] }

    /// Seconds of this process's processor time.
    static func cpu(_ body: () -> Void) -> Double {
        let start = clock()
        body()
        return Double(clock() - start) / 1e6
    }
}

/// What this process holds, in bytes, as the kernel counts.
enum Memory {
    static var now: Int { field("VmRSS:") }
    static var peak: Int { field("VmHWM:") }

    private static func field(_ name: String) -> Int {
        guard let text = try? String(contentsOfFile: "/proc/self/status", encoding: .utf8) else { return 0 }
        for line in text.split(separator: "\n") where line.hasPrefix(name) {
            return (line.split(separator: " ").compactMap { Int($0) }.first ?? 0) << 10
        }
        return 0
    }
}
