// What the filter is told to protect, what it answers about a packet, and what it tells of what it did.

/// What happens to a connection that a rule matches on.
public enum BlockAction: String, Sendable, CaseIterable {
    /// Both ends see the connection reset.
    case reset
    /// The request's bytes are overwritten: the server answers that, and the connection lives.
    case neutralise
    /// The server's end is closed; the client hears nothing more.
    case silent
}

/// What happens to a connection that cannot be inspected.
public enum UninspectableAction: String, Sendable, CaseIterable { case reset, pass }

/// A port whose traffic is judged.
public struct PortPolicy: Sendable, Equatable {
    public var port: UInt16
    /// 6: TCP, 17: UDP.
    public var transport: UInt8
    public var onBlock = BlockAction.reset
    public var onUninspectable = UninspectableAction.reset
    /// Traffic passes while the filter is dead or overloaded: what passed it then is no reason to end a connection later.
    public var isOpen = true

    public init(port: UInt16, transport: UInt8) {
        self.port = port
        self.transport = transport
    }
}

public struct FilterOptions: Sendable {
    public var ports: [PortPolicy] = []
    /// Tells what would be blocked, and blocks nothing.
    public var observes = false
    public var engine = EngineOptions()
    /// Connections whose handshake is not complete.
    public var halfOpenLimit = 65_536
    /// Bytes let through and not yet acknowledged, of all connections: beyond it new bytes wait at the client.
    public var keptLimitBytes = 256 << 20
    /// An encrypted session may leave the queue.
    public var bypassesEncrypted = true

    public init() {}
}

/// A state that the kernel keeps for a connection, so that its packets need not be judged.
public enum FlowMark: Sendable, Equatable {
    /// Seen from its beginning.
    case seen
    /// Nothing that a rule could match can come any more.
    case bypassed
}

/// What becomes of one packet.
public struct Judgement: Sendable {
    public enum Delivery: Sendable, Equatable {
        case accept
        /// With these bytes instead.
        case replace([UInt8])
        case drop
    }
    public var delivery = Delivery.accept
    public var mark: FlowMark?
    /// Whole IP packets to be sent besides.
    public var inject: [[UInt8]] = []
    public var events: [FilterEvent] = []

    public init(_ delivery: Delivery = .accept) { self.delivery = delivery }
}

/// Something that the operator should know.
public struct FilterEvent: Sendable, Equatable {
    public enum Kind: String, Sendable {
        case blocked
        case wouldBlock = "would-block"
        case uninspectable
        /// Not inspectable, and by the port's setting or because the connection is older than the filter, let through.
        case uninspectablePassed = "uninspectable-passed"
    }
    /// Bytes of the packet that are told.
    public static let excerptLimitBytes = 256

    public var kind: Kind
    public var time: Instant
    public var flow: FlowName
    /// The rule's file and number, or its name; nil where no rule could be decided.
    public var rule: String?
    public var sid: Int?
    public var message = ""
    public var cves: [String] = []
    public var buffer: String?
    public var offset: Int?
    public var request: Int?
    public var reason: Uninspectable.Reason?
    /// What was done to the connection.
    public var action: BlockAction?
    public var excerpt: [UInt8] = []
}

/// What was seen, in numbers that only grow.
public struct FilterCounters: Sendable, Equatable {
    public var packets = 0
    public var bytes = 0
    public var replies = 0
    public var flows = 0
    /// Connections from before the filter.
    public var earlierFlows = 0
    public var requests = 0
    public var blocked = 0
    public var uninspectable = 0
    public var encrypted = 0
    public var bypassed = 0
    /// Packets whose bytes were made to agree with an earlier copy, or whose urgent or SYN data were taken away.
    public var corrected = 0
    /// Packets dropped because they could not be compared with what was let through; their sender repeats them.
    public var refused = 0
    public var malformed = 0

    public init() {}
}
