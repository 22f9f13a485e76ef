// One conversation: who talks to whom, what protocol it is, and what rules remember of it.

/// What one direction has sent.
struct Direction {
    var packets = 0
    var bytes = 0
    /// TCP: the next byte's sequence number once it is known.
    var next: UInt32?
    var start: UInt32?
    var isFinished = false
    /// Delivered bytes that rules on the stream may still need; nil until there are any.
    var stream: StreamState?
    var waiting: [Segment] = []
    var waitingBytes = 0
    /// The first bytes, until it is known what protocol they are: any number of segments may bring them.
    var beginning: [UInt8] = []
    /// The latest acknowledgement that this direction sent.
    var acknowledged: UInt32?
}

/// Bytes that came before an earlier byte did.
struct Segment {
    var sequence: UInt32
    var bytes: [UInt8]
    var isLast: Bool
}

/// The payload of one direction as rules without a named buffer see it.
final class StreamState {
    var store = StreamStore()
    var pending: [PendingRule] = []
    /// By rule: up to where its latest match reached.
    var told: [Int: Int] = [:]
    /// Where the request begins that is being sent: rules look at nothing before it.
    var beginning = 0
}

final class Flow {
    let name: FlowName
    var application: AppProtocol?
    /// Both sides spoke, or for TCP the handshake is complete.
    var isEstablished = false
    var directions: (client: Direction, server: Direction) = (Direction(), Direction())
    var bits: Set<Int> = []
    var http: HTTPSession?
    var message: MessageReader?
    /// The client asked for encryption from here on.
    var startsEncryption = false
    /// Not read any more: a memory limit was reached, and that was said.
    var isGivenUp = false
    /// Ended by a rule, or by what cannot be inspected.
    var isCondemned = false
    /// A pass rule matched: no alert any more.
    var isPassed = false
    var wasMidstream = false
    var sawSyn = false
    var lastSeen: Instant
    /// The bytes that began each direction were looked at for their protocol.
    var probed = 0
    var thresholds: [Int: (count: Int, next: Int)] = [:]
    /// Where packets are held back until they are judged.
    var passage: Passage?
    /// Tells connections of the same name apart.
    var number: UInt64 = 0

    init(_ name: FlowName, at time: Instant) {
        self.name = name
        lastSeen = time
    }

    subscript(toServer toServer: Bool) -> Direction {
        get { toServer ? directions.client : directions.server }
        _modify { if toServer { yield &directions.client } else { yield &directions.server } }
    }

    /// The request that was being sent is over: rules without a named buffer begin anew, but for those that wait.
    func rest() {
        for toServer in [true, false] {
            if self[toServer: toServer].stream?.rest() == false { self[toServer: toServer].stream = nil }
        }
    }

    /// Nothing of it is kept or read any more.
    func letGo() {
        http = nil
        message = nil
        for toServer in [true, false] {
            self[toServer: toServer].stream = nil
            self[toServer: toServer].waiting = []
            self[toServer: toServer].waitingBytes = 0
            self[toServer: toServer].beginning = []
        }
    }

    /// Rules that could not be decided on a stream of this flow, each said once.
    var undecided: Set<Int> = []

    /// What the engine counted for this flow last.
    var countedBytes = 0

    var keptBytes: Int {
        func of(_ d: Direction) -> Int { d.waitingBytes + d.beginning.count + (d.stream?.store.bytes.count ?? 0) }
        return of(directions.client) + of(directions.server) + (http?.keptBytes ?? 0) + (message?.keptBytes ?? 0)
    }
}
