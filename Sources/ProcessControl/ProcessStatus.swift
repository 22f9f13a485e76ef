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
        // Read for every thread of every process that is touched: the lines are compared as bytes. The first of a name counts; the
        // process controls only the value of `Name`, which has no newline.
        var state: UInt8?, group: UInt64?, parent: UInt64?, name: ArraySlice<UInt8>?, tracer: UInt64?, user: UInt64?
        var ids: ArraySlice<UInt8>?, threads: UInt64?, seccomp: UInt64?, isKernel: UInt64?, features: ArraySlice<UInt8>?
        var hasMemory = false
        var start = 0
        while start < text.count {
            let end = text[start...].firstIndex(of: UInt8(ascii: "\n")) ?? text.count
            defer { start = end + 1 }
            guard let colon = text[start..<end].firstIndex(of: UInt8(ascii: ":")) else { continue }
            var value = TextScanner(text, colon + 1..<end)
            value.skipBlanks()
            func isField(_ name: String) -> Bool { text[start..<colon].elementsEqual(name.utf8) }
            switch text[start] {
            case UInt8(ascii: "N"):
                if name == nil, isField("Name") { name = value.rest }
                if ids == nil, isField("NSpid") { ids = value.rest }
            case UInt8(ascii: "S"):
                if state == nil, isField("State") { state = value.byte() }
                if seccomp == nil, isField("Seccomp") { seccomp = value.decimal() }
            case UInt8(ascii: "T"):
                if group == nil, isField("Tgid") { group = value.decimal() }
                if tracer == nil, isField("TracerPid") { tracer = value.decimal() }
                if threads == nil, isField("Threads") { threads = value.decimal() }
            case UInt8(ascii: "P"): if parent == nil, isField("PPid") { parent = value.decimal() }
            case UInt8(ascii: "U"): if user == nil, isField("Uid") { user = value.decimal() }
            case UInt8(ascii: "K"): if isKernel == nil, isField("Kthread") { isKernel = value.decimal() }
            case UInt8(ascii: "V"): if isField("VmSize") { hasMemory = true }
            case UInt8(ascii: "x"): if features == nil, isField("x86_Thread_features") { features = value.rest }
            default: break
            }
        }
        guard let state, let group = group.flatMap({ Int32(exactly: $0) }), let parent = parent.flatMap({ Int32(exactly: $0) }) else {
            throw Failure("status-malformed", "State, Tgid or PPid is missing.", at: place)
        }
        self.name = name.map { String(decoding: $0, as: UTF8.self) } ?? ""
        self.state = State(Character(Unicode.Scalar(state)))
        threadGroup = ProcessID(group)
        self.parent = ProcessID(parent)
        self.tracer = tracer.flatMap { Int32(exactly: $0) }.flatMap { $0 == 0 ? nil : ProcessID($0) }
        self.user = user.flatMap { UInt32(exactly: $0) } ?? 0
        namespaceIDs =
            ids?.split(separator: UInt8(ascii: "\t")).compactMap { Int32(String(decoding: $0, as: UTF8.self)) } ?? []
        threadCount = threads.flatMap { Int(exactly: $0) } ?? 0
        self.seccomp =
            switch seccomp {
            case 1: .strict
            case 2: .filter
            default: .none
            }
        // Kernels before 6.10 have no Kthread line; there a living task without memory lines is one.
        isKernelThread = isKernel.map { $0 == 1 } ?? (!hasMemory && self.state != .zombie && self.state != .dead)
        hasShadowStack = features?.split(separator: UInt8(ascii: " ")).contains { $0.elementsEqual("shstk".utf8) } ?? false
    }

    /// The thread runs no more, and waits, or not even that, to be asked how it ended. Of a process: its main thread; others
    /// may go on, see `isProcessEnded`.
    public var isEnded: Bool { state == .zombie || state == .dead }
    /// No thread is left that could run.
    public var isProcessEnded: Bool { isEnded && threadCount <= 1 }
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
