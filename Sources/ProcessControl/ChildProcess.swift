// Programs that Fother starts: tools it runs to the end, and children it talks to. Nothing here is asynchronous.

import CLinux
import ELF
import Glibc
import Synchronization

/// How a child ended.
public enum ExitStatus: Hashable, Sendable, CustomStringConvertible {
    case exited(Int32)
    case killed(signal: Int32)
    public var isSuccess: Bool { self == .exited(0) }
    public var description: String {
        switch self {
        case .exited(let code): "exit status \(code)"
        case .killed(let signal): "killed by signal \(signal)"
        }
    }
}

/// What a tool left behind.
public struct ChildOutput: Sendable {
    public var status: ExitStatus
    public var output: [UInt8]
    public var errors: [UInt8]
    public var outputText: String { String(decoding: output, as: UTF8.self) }
    public var errorText: String { String(decoding: errors, as: UTF8.self) }
}

/// A child process with an empty signal mask and default signal dispositions. When the last reference goes, a child
/// that still runs is terminated (SIGTERM, then SIGKILL after 0.2 s) and reaped.
public final class ChildProcess: Sendable {
    public enum Stream: Sendable {
        /// /dev/null.
        case null
        /// This process's own.
        case inherit
        /// A pipe: `write`, `readLine`, `readToEnd` work on it.
        case pipe
    }

    public let id: ProcessID
    public let arguments: [String]
    private let state: Mutex<State>

    private struct State {
        var status: ExitStatus?
        var input: Descriptor?
        var output: Descriptor?
        var errors: Descriptor?
        /// Read from `output` and not yet taken.
        var pending: [UInt8] = []
    }

    /// Starts `arguments[0]`, looked up in PATH when it has no slash. `environment` (`NAME=value`) replaces this
    /// process's own. Failure: `tool-not-started`.
    public init(
        _ arguments: [String], environment: [String]? = nil, directory: String? = nil,
        input: Stream = .null, output: Stream = .inherit, errors: Stream = .inherit
    ) throws(Failure) {
        self.arguments = arguments
        let pid: Int32
        let pipes: State
        do { (pid, pipes) = try Self.start(arguments, environment, directory, input, output, errors) } catch {
            throw Failure(
                "tool-not-started", "it could not be started: \(error.text).", at: arguments.first ?? "",
                remedy: error.code == ENOENT ? "Install the package that provides it." : "")
        }
        id = ProcessID(pid)
        state = Mutex(pipes)
    }

    private static func start(
        _ arguments: [String], _ environment: [String]?, _ directory: String?, _ input: Stream, _ output: Stream,
        _ errors: Stream
    ) throws(Errno) -> (Int32, State) {
        guard let program = arguments.first, !program.isEmpty,
            !(arguments + (environment ?? [])).contains(where: { $0.utf8.contains(0) })
        else { throw Errno(0 - EINVAL) }
        var state = State()
        let null = try Descriptor(opening: "/dev/null", flags: O_RDWR)
        // The child's ends live until it is started, and no longer: readers must see the end.
        var ends: [Descriptor] = [null]
        var standard: (Int32, Int32, Int32) = (null.fd, null.fd, null.fd)
        switch input {
        case .null: break
        case .inherit: standard.0 = 0
        case .pipe:
            let pipe = try makePipe()
            (standard.0, state.input) = (pipe.read.fd, pipe.write)
            ends.append(pipe.read)
        }
        switch output {
        case .null: break
        case .inherit: standard.1 = 1
        case .pipe:
            let pipe = try makePipe()
            (standard.1, state.output) = (pipe.write.fd, pipe.read)
            ends.append(pipe.write)
        }
        switch errors {
        case .null: break
        case .inherit: standard.2 = 2
        case .pipe:
            let pipe = try makePipe()
            (standard.2, state.errors) = (pipe.write.fd, pipe.read)
            ends.append(pipe.write)
        }
        let pid = try spawn(arguments, environment: environment, directory: directory, standard: standard)
        withExtendedLifetime(ends) {}
        return (pid, state)
    }

    deinit {
        if (try? poll()) != nil { return }
        _ = fother_kill(id.value, SIGTERM)
        if (try? wait(timeout: .milliseconds(200))) != nil { return }
        _ = fother_kill(id.value, SIGKILL)
        _ = try? wait()
    }

    /// How it ended, or nil while it runs.
    public func poll() throws(Failure) -> ExitStatus? { try reap(WNOHANG) }

    /// Waits for its end. Failure: `tool-timed-out` (the child goes on).
    @discardableResult
    public func wait(timeout: Duration? = nil) throws(Failure) -> ExitStatus {
        guard let timeout else {
            while true { if let status = try reap(0) { return status } }
        }
        let deadline = ContinuousClock.now + timeout
        var pause: Int64 = 200_000
        while true {
            if let status = try poll() { return status }
            if ContinuousClock.now >= deadline {
                throw Failure("tool-timed-out", "it did not end within \(timeout).", at: arguments[0])
            }
            _ = fother_sleep(pause)
            pause = min(pause * 2, 20_000_000)
        }
    }

    private func reap(_ options: Int32) throws(Failure) -> ExitStatus? {
        // A blocking wait must not hold the lock: others may want to send a signal or to read meanwhile.
        if let status = state.withLock({ $0.status }) { return status }
        do {
            guard let status = try waitFor(id.value, options: options) else { return nil }
            let end: ExitStatus = status.kind == 0 ? .exited(status.value) : .killed(signal: status.value)
            state.withLock { $0.status = end }
            return end
        } catch {
            if error.code == EINTR { return nil }
            if let status = state.withLock({ $0.status }) { return status }
            throw Failure("tool-wait-failed", "waiting for it failed: \(error.text).", at: arguments[0])
        }
    }

    /// Sends a signal to the child, unless it has been reaped.
    public func signal(_ number: Int32) {
        state.withLock { if $0.status == nil { _ = fother_kill(id.value, number) } }
    }

    /// Writes to the child's input pipe. Failure: `tool-closed`.
    public func write(_ bytes: [UInt8]) throws(Failure) {
        guard let input = state.withLock({ $0.input }) else { throw closed("input") }
        var done = 0
        while done < bytes.count {
            do { done += try input.writeSome(bytes, from: done) } catch { throw closed("input") }
        }
    }
    public func write(_ text: String) throws(Failure) { try write(Array(text.utf8)) }

    /// The child sees the end of its input.
    public func closeInput() { state.withLock { $0.input = nil } }

    /// The next line of its output without the newline, or nil at the end. Waits for it, at most `timeout`.
    /// Failures: `tool-timed-out`; `tool-output-too-long` (a line above 1 MiB).
    public func readLine(timeout: Duration = .seconds(30)) throws(Failure) -> String? {
        guard let output = state.withLock({ $0.output }) else { throw closed("output") }
        let deadline = ContinuousClock.now + timeout
        while true {
            let line: String? = state.withLock { state in
                guard let end = state.pending.firstIndex(of: UInt8(ascii: "\n")) else { return nil }
                defer { state.pending.removeFirst(end + 1) }
                return String(decoding: state.pending[..<end], as: UTF8.self)
            }
            if let line { return line }
            let left = milliseconds(until: deadline)
            if left == 0 { throw Failure("tool-timed-out", "no line came within \(timeout).", at: arguments[0]) }
            guard fother_poll(-1, output.fd, -1, left) > 0 else { continue }
            let bytes = (try? output.readSome(64 << 10)) ?? []
            let count = state.withLock { state in
                state.pending += bytes
                return state.pending.count
            }
            if count > 1 << 20 { throw tooLong(1 << 20) }
            if bytes.isEmpty {
                return state.withLock { state in
                    defer { state.pending = [] }
                    return state.pending.isEmpty ? nil : String(decoding: state.pending, as: UTF8.self)
                }
            }
        }
    }

    /// Runs a tool to its end and takes what it prints. A non-zero exit status is not a failure here: see
    /// `runChecked`. Failures: `tool-not-started`; `tool-timed-out` and `tool-output-too-long` (the tool is ended).
    public static func run(
        _ arguments: [String], environment: [String]? = nil, directory: String? = nil, input: [UInt8] = [],
        timeout: Duration = .seconds(120), limitBytes: Int = 64 << 20
    ) throws(Failure) -> ChildOutput {
        let child = try ChildProcess(
            arguments, environment: environment, directory: directory, input: input.isEmpty ? .null : .pipe,
            output: .pipe, errors: .pipe)
        let deadline = ContinuousClock.now + timeout
        var (stdin, stdout, stderr) = child.state.withLock { state in
            defer { (state.input, state.output, state.errors) = (nil, nil, nil) }
            return (state.input, state.output, state.errors)
        }
        stdin?.setNonblocking()
        var written = 0
        var result = ChildOutput(status: .exited(0), output: [], errors: [])
        while stdout != nil || stderr != nil {
            let left = child.milliseconds(until: deadline)
            if left == 0 { throw Failure("tool-timed-out", "it did not end within \(timeout).", at: arguments[0]) }
            let ready = fother_poll(stdin?.fd ?? -1, stdout?.fd ?? -1, stderr?.fd ?? -1, left)
            if ready & 1 != 0, let pipe = stdin {
                written += (try? pipe.writeSome(input, from: written)) ?? input.count
                if written >= input.count { stdin = nil }
            }
            if ready & 2 != 0, let pipe = stdout {
                let bytes = (try? pipe.readSome(64 << 10)) ?? []
                if bytes.isEmpty { stdout = nil } else { result.output += bytes }
            }
            if ready & 4 != 0, let pipe = stderr {
                let bytes = (try? pipe.readSome(64 << 10)) ?? []
                if bytes.isEmpty { stderr = nil } else { result.errors += bytes }
            }
            if result.output.count + result.errors.count > limitBytes { throw child.tooLong(limitBytes) }
        }
        result.status = try child.wait(timeout: max(deadline - ContinuousClock.now, .milliseconds(1)))
        return result
    }

    /// `run`, with any exit status but 0 a failure `tool-failed` that quotes the last line of the tool's errors.
    public static func runChecked(
        _ arguments: [String], environment: [String]? = nil, directory: String? = nil, input: [UInt8] = [],
        timeout: Duration = .seconds(120), limitBytes: Int = 64 << 20
    ) throws(Failure) -> ChildOutput {
        let result = try run(
            arguments, environment: environment, directory: directory, input: input, timeout: timeout,
            limitBytes: limitBytes)
        guard result.status.isSuccess else {
            let last = result.errorText.split(separator: "\n").last.map(String.init) ?? ""
            throw Failure(
                "tool-failed", "\(result.status)" + (last.isEmpty ? "." : ": \(last)"), at: arguments.joined(separator: " "))
        }
        return result
    }

    private func milliseconds(until deadline: ContinuousClock.Instant) -> Int32 {
        let left = deadline - .now
        if left <= .zero { return 0 }
        let (seconds, attoseconds) = left.components
        return Int32(clamping: min(seconds, 3600) * 1000 + attoseconds / 1_000_000_000_000_000 + 1)
    }
    private func closed(_ name: String) -> Failure {
        Failure("tool-closed", "its \(name) is closed, or was never a pipe.", at: arguments[0])
    }
    private func tooLong(_ limit: Int) -> Failure {
        Failure("tool-output-too-long", "it printed more than \(limit) bytes.", at: arguments[0])
    }
}
