// The evasions without a filter: what each carries to the application. A row that reaches nothing here proves nothing there.

import ProcessControl
import Testing

extension Evasion {
    static let all = segments + hops + carriers + synData

    /// Does it once, and returns what the application read, a connection each.
    func run(in network: Network, version: Int) throws -> [[UInt8]] {
        let recorder = try Recorder(network.server, options: application)
        let attacker = try Attacker(network)
        let attack = Attack(attacker, to: version == 4 ? network.serverAddress : network.serverAddress6)
        try perform(attack)
        try attack.insist(on: stream)
        if try !recorder.connections.contains(where: Self.isIn) { try attack.listen(.milliseconds(60)) }
        return try recorder.connections
    }

    func prepare(_ network: Network) throws {
        for setting in settings { try network.server.run("sysctl", "-qw", setting) }
    }
}

extension InterceptionTests {
    @Suite struct EvasionControlTests {
        @Test(arguments: Evasion.all) func withoutAFilter(_ evasion: Evasion) throws {
            let network = try Network(routers: evasion.routers ?? 0)
            try evasion.prepare(network)
            for version in evasion.versions.sorted() {
                let read = try evasion.run(in: network, version: version)
                #expect(
                    read.contains(where: Evasion.isIn) == evasion.reaches,
                    "IPv\(version): \(read.map { String(decoding: $0, as: UTF8.self) })")
            }
        }

        @Test func everyWayToSayARequestReachesTheServerWithoutAFilter() throws {
            let network = try Network()
            for evasion in RequestEvasion.all {
                let nginx = try Nginx(network.server)
                let talk = try Talk(network.client, to: network.serverAddress)
                try evasion.perform(talk)
                _ = try talk.expect(evasion.name == "no version at all" ? 0 : 1)
                let requests = try nginx.requests
                #expect(try RequestEvasion.reached(nginx), "\(evasion.name): \(requests)")
            }
        }
    }
}
