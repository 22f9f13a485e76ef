// What /proc/PID/status, stat and syscall say about a process or one of its threads.

import ELF

/// The parts of /proc/PID/status that decide how a process may be touched.
public struct ProcessStatus: Hashable, Sendable {
    public enum State: Hashable, Sendable {
        case running, sleeping, uninterruptible, stopped, traced, zombie, dead, idle
        case other(Character)

        init(_ letter: Character) {
            self =
                switch letter {
                case "R": .running
                case "S": .sleeping
                case "D": .uninterruptible
                case "T": .stopped
                case "t": .traced
                case "Z": .zombie
                case "X", "x": .dead
                case "I": .idle
                default: .other(letter)
                }
        }
    }
    public enum Seccomp: Hashable, Sendable { case none, strict, filter }

    /// The command's name: at most 15 bytes, chosen by the process; control characters come as `\n` or `\ooo`.
    public var name: String
    public var state: State
    public var threadGroup: ProcessID
    public var parent: ProcessID
    /// Who traces it; nil when nobody does. 0 in the file also when the tracer is in another pid namespace.
    public var tracer: ProcessID?
    /// Real user id.
    public var user: UInt32
    /// Its id in every pid namespace from the reader's own down to its own.
    public var namespaceIDs: [Int32]
    public var threadCount: Int
    public var seccomp: Seccomp
    /// A kernel thread: no memory of its own, nothing to patch.
    public var isKernelThread: Bool
    /// A user-mode shadow stack is on: return addresses cannot be rewritten.
    public var hasShadowStack: Bool

    /// Failure: `status-malformed` when the state, the thread group or the parent is missing.
    public init(parsing text: [UInt8], at place: String = "status") throws(Failure) {
        var fields: [String: String] = [:]
        for line in text.split(separator: UInt8(ascii: "\n")) {
            guard let colon = line.firstIndex(of: UInt8(ascii: ":")) else { continue }
            let key = String(decoding: line[..<colon], as: UTF8.self)
            // The first of a name counts; the process controls only the value of `Name`, which has no newline.
            if fields[key] == nil {
                fields[key] = trimmed(String(decoding: line[(colon + 1)...], as: UTF8.self))
            }
        }
        guard let state = fields["State"]?.first, let group = fields["Tgid"].flatMap({ Int32($0) }),
            let parent = fields["PPid"].flatMap({ Int32($0) })
        else { throw Failure("status-malformed", "State, Tgid or PPid is missing.", at: place) }
        name = fields["Name"] ?? ""
        self.state = State(state)
        threadGroup = ProcessID(group)
        self.parent = ProcessID(parent)
        tracer = fields["TracerPid"].flatMap { Int32($0) }.flatMap { $0 == 0 ? nil : ProcessID($0) }
        user = fields["Uid"]?.split(separator: "\t").first.flatMap { UInt32($0) } ?? 0
        namespaceIDs = fields["NSpid"]?.split(separator: "\t").compactMap { Int32($0) } ?? []
        threadCount = fields["Threads"].flatMap { Int($0) } ?? 0
        seccomp =
            switch fields["Seccomp"] {
            case "1": .strict
            case "2": .filter
            default: .none
            }
        // Kernels before 6.10 have no Kthread line; there a living task without memory lines is one.
        let hasMemory = fields["VmSize"] != nil
        isKernelThread = fields["Kthread"].map { $0 == "1" } ?? (!hasMemory && state != "Z" && state != "X")
        hasShadowStack = fields["x86_Thread_features"]?.split(separator: " ").contains("shstk") ?? false
    }

    /// The thread runs no more, and waits, or not even that, to be asked how it ended. Of a process: its main thread; others
    /// may go on, see `isProcessEnded`.
    public var isEnded: Bool { state == .zombie || state == .dead }
    /// No thread is left that could run.
    public var isProcessEnded: Bool { isEnded && threadCount <= 1 }
}

private func trimmed(_ s: String) -> String {
    var s = Substring(s)
    while let c = s.first, c == " " || c == "\t" { s.removeFirst() }
    while let c = s.last, c == " " || c == "\t" { s.removeLast() }
    return String(s)
}

/// The fields of /proc/PID/stat that status does not have.
struct TaskStat {
    /// PF_IO_WORKER, and PF_USER_WORKER of kernel 6.4 on: io_uring's and vhost's.
    private static let workerFlags: UInt64 = 0x10 | 0x4000

    /// A thread of the process that only ever runs in the kernel.
    let isKernelWorker: Bool
    /// Clock ticks since boot.
    let startTime: UInt64

    /// `pid (name) state ppid …`: the name may hold spaces and parentheses, so fields are counted from the last `)`.
    init(parsing text: [UInt8], at place: String) throws(Failure) {
        guard let close = text.lastIndex(of: UInt8(ascii: ")")) else {
            throw Failure("stat-malformed", "there is no name in parentheses.", at: place)
        }
        let fields = text[(close + 1)...].split(whereSeparator: { $0 == UInt8(ascii: " ") || $0 == UInt8(ascii: "\n") })
        // Field 3 is the first one here; 22 is the start time.
        guard fields.count > 19, let value = UInt64(String(decoding: fields[19], as: UTF8.self)) else {
            throw Failure("stat-malformed", "there is no start time.", at: place)
        }
        startTime = value
        // Field 9.
        isKernelWorker = (UInt64(String(decoding: fields[6], as: UTF8.self)) ?? 0) & Self.workerFlags != 0
    }
}

/// What a thread is doing, by /proc/PID/task/TID/syscall.
public enum ThreadActivity: Hashable, Sendable {
    /// On a CPU, or waiting for one.
    case running
    /// Blocked in the system call with this number.
    case inSystemCall(Int)
    /// Blocked outside a system call (a page fault), stopped before one, or the kernel does not tell.
    case unknown

    init(parsing text: [UInt8]) {
        let first = text.split(whereSeparator: { $0 == UInt8(ascii: " ") || $0 == UInt8(ascii: "\n") }).first
        let word = String(decoding: first ?? [], as: UTF8.self)
        if word == "running" {
            self = .running
        } else if let number = Int(word), number >= 0 {
            self = .inSystemCall(number)
        } else {
            self = .unknown
        }
    }
}
