// One TCP connection that passes through the filter: what was let through, what the server said of it, and what follows from that.

final class Passage {
    var delivered: Delivered
    /// The client's first number, from its SYN.
    let start: UInt32?
    /// The server answered the SYN, and acknowledged the client's first number.
    var isAnswered = false
    /// The server acknowledged bytes of the client: it and the filter count alike.
    var isConfirmed = false
    /// It was there before the filter, or passed by it for a while: what cannot be read of it is told once, and never ends it.
    var isEarlier = false
    var isTold = false
    /// To be told with the next packet.
    var lost: Uninspectable.Reason?
    /// The number of the client's end, once let through.
    var end: UInt32?
    var isServerDone = false
    var isReset = false
    /// The server's first bytes were those of an encrypted session.
    var isServerEncrypted = false
    var sawServerData = false
    /// Never to be looked at again.
    var isBypassed = false
    /// Bytes before this number belong to a request that is being overwritten.
    var fillUntil: UInt32?
    /// The last request that was overwritten.
    var neutralised = 0
    /// Condemned, but the server still answers earlier requests: the ends are reset when the client repeats what did not pass.
    var isWinding = false

    init(next: UInt32, start: UInt32?) {
        delivered = Delivered(next: next)
        self.start = start
    }

    var isFinished: Bool { isReset || end != nil && isServerDone }
}
