// Names of processes and threads, and the list of those that exist.

import CLinux
import ELF
import Glibc

/// A process id in this process's own pid namespace. It may be recycled: `ProcessHandle` pins one process.
public struct ProcessID: Hashable, Comparable, Sendable, CustomStringConvertible {
    public let value: Int32
    public init(_ value: Int32) { self.value = value }
    public static func < (a: ProcessID, b: ProcessID) -> Bool { a.value < b.value }
    public var description: String { String(value) }
    /// This process.
    public static var own: ProcessID { ProcessID(getpid()) }
}

/// A thread id in this process's own pid namespace.
public struct ThreadID: Hashable, Comparable, Sendable, CustomStringConvertible {
    public let value: Int32
    public init(_ value: Int32) { self.value = value }
    public static func < (a: ThreadID, b: ThreadID) -> Bool { a.value < b.value }
    public var description: String { String(value) }
}

/// Every process that `/proc` shows now, kernel threads and other namespaces' children included, by id.
public func listProcesses() throws(Failure) -> [ProcessID] {
    do {
        return try Descriptor(opening: "/proc", flags: O_RDONLY | O_DIRECTORY).listNumbers().map { ProcessID($0) }.sorted()
    } catch {
        throw Failure(
            "proc-unreadable", "the list of processes cannot be read: \(error.text).", at: "/proc",
            remedy: "Mount procfs at /proc.")
    }
}
