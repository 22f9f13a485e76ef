// Times the engine on generated traffic with given rules: bench-engine [--rounds N] RULES… prints medians for requests and for bodies.

import ELF
import Foundation
import VirtualPatch

@main
struct EngineBenchmark {
    static func main() {
        do { try run() } catch {
            print("bench-engine: \(error)")
            exit(1)
        }
    }

    static func run() throws {
        var words = Array(CommandLine.arguments.dropFirst())
        var rounds = 5
        if words.first == "--rounds", words.count >= 2 {
            rounds = Int(words[1]) ?? rounds
            words.removeFirst(2)
        }
        let files = try words.map { RuleSet.File(name: $0, bytes: Array(try Data(contentsOf: URL(fileURLWithPath: $0)))) }
        let clock = ContinuousClock()
        var compiled: CompiledRules?
        var loaded = 0
        let loading = try clock.measure {
            let set = RuleSet.load(files)
            loaded = set.rules.count
            compiled = try CompiledRules(set.rules)
        }
        guard let compiled else { return }
        print("\(loaded) rules loaded and compiled in \(loading)")
        var options = EngineOptions()
        options.requestsOnly = true

        let count = 2_000
        let requests = (0..<count).flatMap { ordinary($0) }
        let perRequest = try median(rounds) {
            let engine = try Engine(compiled, options)
            let time = cpu { _ = engine.inspect(request: requests) }
            return time / Double(count)
        }
        print("ordinary request (\(requests.count / count) bytes): \(Int(perRequest * 1e9)) ns of CPU")

        let body = upload(64 << 20)
        let perByte = try median(rounds) {
            let engine = try Engine(compiled, options)
            return cpu { _ = engine.inspect(request: body) }
        }
        print("upload of \(body.count >> 20) MiB: \(Int(Double(body.count) / perByte / 1e6)) MB/s")
    }

    static func median(_ rounds: Int, _ one: () throws -> Double) rethrows -> Double {
        var times: [Double] = []
        for _ in 0..<rounds { times.append(try one()) }
        return times.sorted()[times.count / 2]
    }

    /// Seconds of this process's processor time.
    static func cpu(_ body: () -> Void) -> Double {
        let start = clock()
        body()
        return Double(clock() - start) / 1e6
    }

    static func ordinary(_ n: Int) -> [UInt8] {
        let paths = ["/", "/index.html", "/static/app.\(n).js?v=3", "/api/v1/items/\(n)?page=2&sort=name", "/images/logo.png"]
        return Array(
            """
            GET \(paths[n % paths.count]) HTTP/1.1\r
            Host: www.example.org\r
            User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r
            Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r
            Accept-Language: en-US,en;q=0.5\r
            Accept-Encoding: gzip, deflate, br\r
            Referer: https://www.example.org/start\r
            Connection: keep-alive\r
            Cookie: session=0123456789abcdef\(n); theme=dark\r
            \r

            """.utf8)
    }

    static func upload(_ size: Int) -> [UInt8] {
        var body: [UInt8] = []
        body.reserveCapacity(size)
        var state: UInt64 = 88_172_645_463_325_252
        while body.count < size {
            state ^= state << 13
            state ^= state >> 7
            state ^= state << 17
            for shift in stride(from: 0, to: 64, by: 8) { body.append(UInt8(32 + (state >> UInt64(shift) & 63))) }
        }
        return Array(
            "PUT /upload HTTP/1.1\r\nHost: a\r\nContent-Type: application/octet-stream\r\nContent-Length: \(body.count)\r\n\r\n".utf8)
            + body
    }
}
