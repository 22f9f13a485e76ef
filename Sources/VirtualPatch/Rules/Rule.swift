// A rule as the engine keeps it, whichever language it was written in.

/// One rule, understood completely: what is not understood never becomes a `Rule`.
public struct Rule: Sendable, Equatable {
    /// `2033916`, or `vpatch-CVE-2023-42793`.
    public var id: String
    public var sid: Int?
    public var revision = 0
    public var message = ""
    /// Where it stands: `file:line`.
    public var place: String
    public var action: Action = .alert
    public var traffic = Traffic()
    public var condition: Condition = .all([])
    public var cves: [String] = []
    public var references: [String] = []
    public var flow = FlowConditions()
    public var flowBits: [FlowBit] = []
    public var hostBits: [HostBit] = []
    public var threshold: Threshold?
    public var isSilent = false
    public var packet = PacketConditions()
    public var events: [String] = []
    /// Smaller comes first; 3 unless the rule says.
    public var priority = 3
    /// Set by `StreamingClass.classify` at load.
    public var streaming: StreamingClass = .streaming
    public var variableCount = 0
    /// Names of the rule's variables, for people.
    public var variables: [String] = []
    public var tags: [String] = []
}

public enum Action: String, Sendable, Equatable { case alert, drop, reject, pass }

public enum AppProtocol: String, Sendable, Equatable { case http, dns, smtp, ftp, tls, ssh, smb, quic }

public enum Transport: Sendable, Equatable { case any, tcp, udp, icmp }

/// Which packets a rule looks at.
public struct Traffic: Sendable, Equatable {
    public var transport: Transport = .any
    public var application: AppProtocol?
    /// `tcp-pkt`: packets alone; `tcp-stream`: the stream alone.
    public var packetsOnly = false
    public var streamOnly = false
    public var source = AddressSet.any
    public var destination = AddressSet.any
    public var sourcePorts = PortSet.any
    public var destinationPorts = PortSet.any
    public var isBidirectional = false
}

public struct FlowConditions: Sendable, Equatable {
    public var toServer = false
    public var toClient = false
    public var established = false
    public var notEstablished = false
    public var stateless = false
    public var onlyStream = false
    public var noStream = false
}

public struct FlowBit: Sendable, Equatable {
    public enum Operation: String, Sendable, Equatable { case set, unset, toggle, isset, isnotset }
    public var operation: Operation
    /// For `isset`, any of them.
    public var names: [String]
}

public struct HostBit: Sendable, Equatable {
    public enum Track: String, Sendable, Equatable { case source = "ip_src", destination = "ip_dst", pair = "ip_pair" }
    public var operation: FlowBit.Operation
    public var name: String
    public var track: Track
    /// Seconds.
    public var expire = 30
}

public struct Threshold: Sendable, Equatable {
    public enum Kind: String, Sendable, Equatable { case limit, threshold, both, backoff }
    public enum Track: String, Sendable, Equatable {
        case source = "by_src", destination = "by_dst", rule = "by_rule", both = "by_both", flow = "by_flow"
    }
    public var kind: Kind
    public var track: Track
    public var count: Int
    public var seconds = 0
    public var multiplier = 0
}

/// Conditions on one packet or on the state of its stream.
public struct PacketConditions: Sendable, Equatable {
    public var payloadSize: SizeTest?
    public var icmpType: SizeTest?
    public var icmpCode: SizeTest?
    public var streamSizes: [StreamSize] = []
    public var ttl: SizeTest?
    public var flags: TCPFlags?
    public var addressesMatch = false

    public var isEmpty: Bool { self == PacketConditions() }
}

public struct TCPFlags: Sendable, Equatable {
    public enum Kind: Sendable, Equatable { case exact, all, any, none }
    public var kind: Kind
    public var bits: UInt8
    public var ignored: UInt8 = 0

    func holds(_ flags: UInt8) -> Bool {
        let f = flags & ~ignored
        return switch kind {
        case .exact: f == bits
        case .all: f & bits == bits
        case .any: f & bits != 0
        case .none: f & bits == 0
        }
    }
}

public struct StreamSize: Sendable, Equatable {
    public enum Side: String, Sendable, Equatable { case server, client, both, either }
    public var side: Side
    public var test: SizeTest
}
