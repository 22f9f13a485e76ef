// A network of a test's own: a client, any number of routers, a server, each in its own namespace, joined by veth pairs.

import ELF
import Foundation
import ProcessControl

/// client - (router ...) - server. Link i is 10.77.i.0/24 and fd77:i::/64; on each, the machine nearer to the client is 1, the other 2.
/// On the first link there is also an attacker, 66: an address that no kernel knows, so that only the attacker answers for it.
final class Network: Sendable {
    let client: Machine
    let routers: [Machine]
    let server: Machine
    /// Where packets of an attacker go on the first link.
    static let firstHop = "02:00:00:00:00:02"
    private let last: Int

    init(routers count: Int = 0) throws {
        client = try Machine("client")
        routers = try (0..<count).map { try Machine("router \($0 + 1)") }
        server = try Machine("server")
        last = count
        let machines = [client] + routers + [server]
        for (i, (near, far)) in zip(machines, machines.dropFirst()).enumerated() {
            let (a, b) = (2 * i + 1, 2 * i + 2)
            try near.run(
                "ip", "link", "add", "far", "address", Self.mac(a), "type", "veth", "peer", "name", "near", "address", Self.mac(b), "netns",
                "\(far.id)")
            // Neighbours are known from the start: asking for them takes IPv6 a second or more on a new link.
            try near.configure("far", ["10.77.\(i).1/24", "fd77:\(i)::1/64"], neighbours: ["10.77.\(i).2", "fd77:\(i)::2"], Self.mac(b))
            try far.configure("near", ["10.77.\(i).2/24", "fd77:\(i)::2/64"], neighbours: ["10.77.\(i).1", "fd77:\(i)::1"], Self.mac(a))
        }
        for router in routers { try router.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1") }
        for (i, machine) in machines.enumerated() {
            var lines: [String] = []
            for link in 0...last where link > i {
                lines += ["route add 10.77.\(link).0/24 via 10.77.\(i).2", "route add fd77:\(link)::/64 via fd77:\(i)::2"]
            }
            for link in 0...last where link < i - 1 {
                lines += ["route add 10.77.\(link).0/24 via 10.77.\(i - 1).1", "route add fd77:\(link)::/64 via fd77:\(i - 1)::1"]
            }
            if i == 1 {
                for address in [Self.attacker, Self.attacker6] {
                    lines.append("neigh replace \(address) lladdr \(Self.mac(1)) dev near nud permanent")
                }
            }
            try machine.run("ip", "-batch", "-", input: lines.joined(separator: "\n") + "\n")
        }
    }

    private static func mac(_ n: Int) -> String { "02:00:00:00:00:0\(n)" }

    static let attacker = "10.77.0.66", attacker6 = "fd77:0::66"
    var serverAddress: String { "10.77.\(last).2" }
    var serverAddress6: String { "fd77:\(last)::2" }
    /// The machine between client and server that a gateway's shield runs on; the server itself where there is no router.
    var guardian: Machine { routers.first ?? server }
}

extension Machine {
    fileprivate func configure(_ interface: String, _ addresses: [String], neighbours: [String], _ mac: String) throws {
        var lines = addresses.map { "addr add \($0) dev \(interface)" + ($0.contains(":") ? " nodad" : "") }
        lines.append("link set \(interface) up")
        lines += neighbours.map { "neigh replace \($0) lladdr \(mac) dev \(interface) nud permanent" }
        try run("ip", "-batch", "-", input: lines.joined(separator: "\n") + "\n")
    }
}
