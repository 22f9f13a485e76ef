// What the engine says about traffic: rules that matched, and what could not be inspected.

/// Nanoseconds since 1970; passed in, never read from a clock.
public struct Instant: Sendable, Hashable, Comparable {
    public var nanoseconds: UInt64
    public init(nanoseconds: UInt64) { self.nanoseconds = nanoseconds }
    public var seconds: UInt64 { nanoseconds / 1_000_000_000 }
    public static func < (a: Instant, b: Instant) -> Bool { a.nanoseconds < b.nanoseconds }
}

/// Two ends of a conversation; the client is who began it.
public struct FlowName: Sendable, Hashable {
    public var client: Address
    public var server: Address
    public var clientPort: UInt16
    public var serverPort: UInt16
    public var transport: UInt8

    public var description: String {
        "\(client.description):\(clientPort) -> \(server.description):\(serverPort)"
    }
}

/// A rule matched.
public struct Alert: Sendable, Equatable {
    public var rule: String
    public var sid: Int?
    public var message: String
    public var cves: [String]
    /// What the rule asks for.
    public var action: Action
    /// Where the first match of the rule is: nil for rules that look into no buffer.
    public var buffer: String?
    public var offset: Int?
    /// 0: as the rule language says; 1: parameters decoded; 2: decoded once more.
    public var view: Int
    public var flow: FlowName
    /// Counts requests of the flow from 1; nil where the rule looked at packets.
    public var request: Int?
    /// Counts the packets that the engine was given from 1.
    public var packet: Int
    public var toServer: Bool
}

/// Bytes that rules would have looked at, and that could not be: never the same as "nothing found".
public struct Uninspectable: Sendable, Equatable {
    public enum Reason: String, Sendable {
        case httpError = "http-error"
        case httpTunnel = "http-tunnel"
        case httpWithoutVersion = "http-without-version"
        case http2 = "http-version-two"
        case httpUpgrade = "http-upgrade"
        case httpLimit = "http-limit"
        case bodyTooLong = "body-too-long"
        case matchLimit = "match-limit"
        case streamTooLong = "stream-too-long"
        case streamGap = "stream-gap"
        case memoryLimit = "memory-limit"
        case fragmentLimit = "fragment-limit"
    }
    public var reason: Reason
    /// The rule that could not be decided; nil: all.
    public var rule: String?
    public var flow: FlowName
    public var request: Int?
    public var packet: Int
}

public enum Finding: Sendable, Equatable {
    case alert(Alert)
    case uninspectable(Uninspectable)
}

extension Action {
    /// Pass goes before drop, drop before reject, reject before alert.
    var weight: Int {
        switch self {
        case .pass: 0
        case .drop: 1
        case .reject: 2
        case .alert: 3
        }
    }
}

/// What should happen to a packet.
public enum Verdict: String, Sendable { case pass, drop, reject }

public struct EngineOptions: Sendable {
    /// Only the view that the rule language specifies.
    public var isStrict = false
    public var profile = ServerProfile.generic
    /// Replies are not fed: requests are completed without them.
    public var requestsOnly = false
    /// A drop or reject ends the flow; else it is only told.
    public var enforces = false
    /// A rule that only alerts blocks too: in the path of traffic rules are loaded to block.
    public var alertsBlock = false
    public var headerLimitBytes = 64 << 10
    /// A body is kept whole up to here.
    public var wholeBodyBytes = 1 << 20
    public var flowLimit = 1_000_000
    /// Bytes kept for all flows together: bodies, streams, segments.
    public var memoryLimitBytes = 512 << 20
    /// Bytes kept for one flow.
    public var flowMemoryLimitBytes = 16 << 20
    /// Segments kept for one direction of a flow while an earlier one is missing.
    public var outOfOrderLimitBytes = 1 << 20
    /// TCP flows whose beginning was not seen are followed from where they are.
    public var picksUpMidstream = true
    public var verifiesChecksums = true

    public init() {}
}
