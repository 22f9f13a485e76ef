// One way to read bytes at runtime addresses, so that parsers never ask where the bytes come from: a file image,
// another process, a cache.

/// Reads memory at runtime addresses. A short read is an error: callers never see partial data.
public protocol MemoryReader {
    /// Exactly `count` bytes starting at `address`.
    func read(at address: RuntimeAddress, count: Int) throws -> [UInt8]
}
