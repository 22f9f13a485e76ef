// Four kinds of address that must never be mixed: an offset in a file, an address as the linker wrote it, an
// address in a running process, and the distance between the last two.

/// A byte offset from the start of a file.
public struct FileOffset: Hashable, Comparable, Sendable, CustomStringConvertible {
    public var value: UInt64
    @inlinable public init(_ value: UInt64) { self.value = value }
    @inlinable public static func < (a: FileOffset, b: FileOffset) -> Bool { a.value < b.value }
    public var description: String { hex(value) }
}

/// A virtual address as the linker assigned it (`st_value`, `p_vaddr`), before the object is loaded.
public struct LinkAddress: Hashable, Comparable, Sendable, CustomStringConvertible {
    public var value: UInt64
    @inlinable public init(_ value: UInt64) { self.value = value }
    @inlinable public static func < (a: LinkAddress, b: LinkAddress) -> Bool { a.value < b.value }
    /// Wraps around like the machine does: results are checked where they are used.
    @inlinable public static func + (a: LinkAddress, n: Int) -> LinkAddress {
        LinkAddress(a.value &+ UInt64(bitPattern: Int64(n)))
    }
    @inlinable public static func - (a: LinkAddress, b: LinkAddress) -> Int {
        Int(truncatingIfNeeded: a.value &- b.value)
    }
    public var description: String { hex(value) }
}

/// A virtual address in one running process.
public struct RuntimeAddress: Hashable, Comparable, Sendable, CustomStringConvertible {
    public var value: UInt64
    @inlinable public init(_ value: UInt64) { self.value = value }
    @inlinable public static func < (a: RuntimeAddress, b: RuntimeAddress) -> Bool { a.value < b.value }
    @inlinable public static func + (a: RuntimeAddress, n: Int) -> RuntimeAddress {
        RuntimeAddress(a.value &+ UInt64(bitPattern: Int64(n)))
    }
    @inlinable public static func - (a: RuntimeAddress, b: RuntimeAddress) -> Int {
        Int(truncatingIfNeeded: a.value &- b.value)
    }
    public var description: String { hex(value) }
}

/// What is added to a link address to get the runtime address of the same byte in one instance (0 for non-PIE).
public struct LoadBias: Hashable, Sendable, CustomStringConvertible {
    public var value: UInt64
    @inlinable public init(_ value: UInt64) { self.value = value }
    /// The bias of an object whose byte at `link` is mapped at `runtime`.
    @inlinable public init(_ runtime: RuntimeAddress, minus link: LinkAddress) { value = runtime.value &- link.value }
    @inlinable public func runtime(_ a: LinkAddress) -> RuntimeAddress { RuntimeAddress(a.value &+ value) }
    @inlinable public func link(_ a: RuntimeAddress) -> LinkAddress { LinkAddress(a.value &- value) }
    public var description: String { hex(value) }
}

/// `0x`-prefixed lower-case hexadecimal, as `readelf` and `/proc` users expect it.
public func hex(_ value: some BinaryInteger) -> String { "0x" + String(value, radix: 16) }
