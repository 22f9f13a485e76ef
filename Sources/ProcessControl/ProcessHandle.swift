// One process, pinned: its /proc directory held open, so that a recycled process id is never mistaken for it.

import CLinux
import ELF
import Glibc

/// A process that existed when this was made. Once it is gone every method throws `process-gone`, even if another
/// process has got its id since. An exec does not end a process: see `ProcessMemory` for what an exec ends.
///
/// Failures of every method: `process-gone`; `process-unreadable` (permission denied); `process-read-failed`.
public final class ProcessHandle: Sendable, CustomStringConvertible {
    public let id: ProcessID
    /// When it started, in clock ticks since boot (field 22 of `stat`). Together with the id it names the process.
    public let startTime: UInt64
    let directory: Descriptor

    enum Limits {
        static let statBytes = 4 << 10
        static let statusBytes = 64 << 10
        /// Arguments may be long; beyond this the command line is refused.
        static let commandLineBytes = 4 << 20
        /// 2^20 mappings of about 100 bytes each.
        static let mapsBytes = 128 << 20
    }

    public init(_ id: ProcessID) throws(Failure) {
        self.id = id
        do {
            directory = try Descriptor(opening: "/proc/\(id)", flags: O_RDONLY | O_DIRECTORY)
        } catch {
            throw processFailure(error, id, "")
        }
        let text = try contents(id, directory, "stat", limitBytes: Limits.statBytes)
        startTime = try TaskStat(parsing: text, at: "/proc/\(id)/stat").startTime
    }

    public var description: String { "process \(id)" }

    /// Its memory map as the kernel tells it now. A kernel thread has none: an empty array. While the process
    /// runs the map is not a snapshot; stop it for one.
    public func mappings() throws(Failure) -> [Mapping] {
        var name = "maps"
        var text = try read(name, limitBytes: Limits.mapsBytes)
        if text.isEmpty, try !status().isKernelThread {
            // The main thread may have ended, and the process goes on without it.
            name = "task/\(try livingThread())/maps"
            text = try read(name, limitBytes: Limits.mapsBytes)
            if text.isEmpty { throw processFailure(Errno(-ESRCH), id, name) }
        }
        return try parseMaps(text, at: "/proc/\(id)/\(name)")
    }

    public func status() throws(Failure) -> ProcessStatus {
        try ProcessStatus(parsing: read("status", limitBytes: Limits.statusBytes), at: "/proc/\(id)/status")
    }

    /// The threads that exist now, dying ones included, in the order of their ids' creation.
    public func threads() throws(Failure) -> [ThreadID] {
        do {
            let task = try Descriptor(opening: "task", in: directory, flags: O_RDONLY | O_DIRECTORY)
            return try task.listNumbers().map { ThreadID($0) }
        } catch {
            throw processFailure(error, id, "task")
        }
    }

    /// A thread that has not ended: the main one, if it has not. Failure: `process-gone` when there is none.
    public func livingThread() throws(Failure) -> ThreadID {
        let main = ThreadID(id.value)
        // Who has memory lives: a shorter file than `status`, which is written for every look.
        if let text = try? read("task/\(main)/statm", limitBytes: Limits.statBytes), let first = text.first, first != UInt8(ascii: "0") {
            return main
        }
        if try !status(of: main).isEnded { return main }
        for thread in try threads() where (try? status(of: thread))?.isEnded == false { return thread }
        throw processFailure(Errno(-ESRCH), id, "")
    }

    public func status(of thread: ThreadID) throws(Failure) -> ProcessStatus {
        let name = "task/\(thread)/status"
        return try ProcessStatus(parsing: read(name, limitBytes: Limits.statusBytes), at: "/proc/\(id)/\(name)")
    }

    /// Whether a thread runs nothing of the process's: the kernel made it for io_uring or vhost.
    func isKernelWorker(_ thread: ThreadID) -> Bool {
        guard let text = try? read("task/\(thread)/stat", limitBytes: Limits.statBytes) else { return false }
        return (try? TaskStat(parsing: text, at: "stat"))?.isKernelWorker ?? false
    }

    /// What a thread is doing: `running`, or blocked in a system call.
    public func activity(of thread: ThreadID) throws(Failure) -> ThreadActivity {
        ThreadActivity(parsing: try read("task/\(thread)/syscall", limitBytes: Limits.statBytes))
    }

    /// Where the kernel says the executable is, as seen from the process's own root; ends in ` (deleted)` when the
    /// file is gone. A name, never an identity.
    public func executablePath() throws(Failure) -> String {
        let name = "task/\(try livingThread())/exe"
        do { return try directory.readLink(name) } catch { throw processFailure(error, id, name) }
    }

    /// Where the program headers of its program are, as the kernel told the program. Failure: `process-read-failed` when it
    /// was not told.
    public func programHeaders() throws(Failure) -> RuntimeAddress {
        let words = Bytes(try read("task/\(try livingThread())/auxv", limitBytes: Limits.statBytes), name: "auxv")
        for at in stride(from: 0, to: words.count, by: 16) where words.u64(at) == 3 {
            if let value = words.u64(at + 8) { return RuntimeAddress(value) }
        }
        throw Failure("process-read-failed", "it does not say where its program is.", at: "/proc/\(id)/auxv")
    }

    /// Its arguments; empty for kernel threads and zombies. The process can overwrite them.
    public func commandLine() throws(Failure) -> [String] {
        var text = try read("cmdline", limitBytes: Limits.commandLineBytes)
        while text.last == 0 { text.removeLast() }
        if text.isEmpty { return [] }
        return text.split(separator: 0, omittingEmptySubsequences: false).map { String(decoding: $0, as: UTF8.self) }
    }

    /// A path that opens the file behind `mapping`, even when it is deleted or in another mount namespace. Reading
    /// it needs CAP_SYS_ADMIN or CAP_CHECKPOINT_RESTORE.
    public func pathOfFile(behind mapping: Mapping) -> String {
        let range = mapping.range
        return "/proc/\(id)/map_files/\(String(range.lowerBound.value, radix: 16))-\(String(range.upperBound.value, radix: 16))"
    }

    /// A path that opens `path` as the process itself would, in its own root.
    public func pathInItsRoot(_ path: String) -> String { "/proc/\(id)/root" + path }

    /// Claims the process for whoever is about to change it, for as long as this handle lives: two at once would overwrite
    /// each other's work. Failure: `busy` when somebody else holds the claim for longer than `patience`.
    public func claim(patience: Duration) throws(Failure) {
        let deadline = ContinuousClock.now + patience
        var attempt = 0
        while true {
            do { if try directory.lock() { return } } catch { throw processFailure(error, id, "") }
            guard ContinuousClock.now < deadline else {
                throw Failure("busy", "another fother is at work on it.", at: "\(self)", remedy: "Wait for it to end, then try again.")
            }
            attempt += 1
            Tracer().rest(attempt)
        }
    }

    /// Whether capabilities that it has count outside of containers.
    var isInOwnUserNamespace: Bool {
        guard let own = try? Descriptor(opening: "/proc/self/ns", flags: O_RDONLY | O_DIRECTORY).readLink("user") else { return false }
        return (try? directory.readLink("ns/user")) == own
    }

    /// A small file of its /proc directory.
    func text(_ name: String) throws(Failure) -> String {
        String(decoding: try read(name, limitBytes: Limits.statusBytes), as: UTF8.self)
    }

    /// Its address space, pinned.
    public func memory() throws(Failure) -> ProcessMemory { try ProcessMemory(self) }

    /// Whether any thread of it has not ended.
    public var isAlive: Bool {
        (try? livingThread()) != nil
    }

    func read(_ name: String, limitBytes: Int) throws(Failure) -> [UInt8] {
        try contents(id, directory, name, limitBytes: limitBytes)
    }
}

private func contents(
    _ id: ProcessID, _ directory: Descriptor, _ name: String, limitBytes: Int
) throws(Failure) -> [UInt8] {
    let bytes: [UInt8]?
    do {
        bytes = try Descriptor(opening: name, in: directory).readToEnd(limitBytes: limitBytes)
    } catch {
        throw processFailure(error, id, name)
    }
    guard let bytes else {
        throw Failure("process-read-failed", "it is longer than \(limitBytes) bytes.", at: "/proc/\(id)/\(name)")
    }
    return bytes
}

/// The failure behind an error from /proc/PID/NAME: gone and not permitted are different answers.
func processFailure(_ error: Errno, _ id: ProcessID, _ name: String) -> Failure {
    let place = name.isEmpty ? "process \(id)" : "process \(id), /proc/\(id)/\(name)"
    switch error.code {
    case ENOENT, ESRCH:
        return Failure("process-gone", "the process does not exist any more.", at: place)
    case EACCES, EPERM:
        return Failure(
            "process-unreadable", "reading it is not permitted.", at: place,
            remedy: "Run as root, with CAP_SYS_PTRACE in the process's user namespace.")
    default:
        return Failure("process-read-failed", "reading it failed: \(error.text).", at: place)
    }
}

extension Failure {
    /// The process, or the address space that was looked at, has ended: not an error for who looks at all processes.
    public var saysProcessIsGone: Bool { code == "process-gone" }
    /// The process may exist and be anything: permission to look was denied.
    public var saysProcessIsUnreadable: Bool { code == "process-unreadable" }
}
