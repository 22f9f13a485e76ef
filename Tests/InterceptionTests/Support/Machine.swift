// One machine of a test's network: a network namespace, and what runs in it.

import ELF
import Foundation
import ProcessControl

/// Gone when the last reference goes, or when this process ends, however that happens.
final class Machine: Sendable {
    let name: String
    private let holder: ChildProcess
    /// Of the process that holds the namespace.
    var id: ProcessID { holder.id }
    private let inside: String

    init(_ name: String) throws {
        self.name = name
        inside = try NetworkPrograms.get().path("inside")
        holder = try ChildProcess([inside, "hold"], input: .pipe, output: .pipe)
        guard try holder.readLine() == "ready" else { throw Failure("network", "no network namespace could be made.", at: name) }
    }

    private func command(_ verb: String, _ arguments: [String]) -> [String] { [inside, verb, "\(holder.id.value)"] + arguments }

    /// Runs a tool to its end in this namespace; any exit status but 0 is a failure.
    @discardableResult
    func run(_ arguments: String..., input: String = "") throws -> String {
        try ChildProcess.runChecked(command("exec", arguments), input: Array(input.utf8)).outputText
    }

    /// Runs a tool to its end in this namespace, whatever its exit status.
    func attempt(_ arguments: [String], environment: [String]? = nil) throws -> ChildOutput {
        try ChildProcess.run(command("exec", arguments), environment: environment)
    }

    /// A program that is talked to, and that ends when its input does.
    func talk(_ arguments: [String]) throws -> ChildProcess {
        try ChildProcess(command("exec", arguments), input: .pipe, output: .pipe)
    }

    /// A program that runs until told to end; its pid is that of the program itself.
    func start(
        _ arguments: [String], environment: [String]? = nil, directory: String? = nil, errors: ChildProcess.Stream = .inherit
    ) throws -> RunningProgram {
        try RunningProgram(
            ChildProcess(
                command("keep", arguments), environment: environment, directory: directory, input: .pipe, output: .pipe, errors: errors))
    }
}

/// A program in a namespace. It and its keeper end with the last reference, and with this process.
final class RunningProgram: Sendable {
    let keeper: ChildProcess
    let id: ProcessID

    fileprivate init(_ keeper: ChildProcess) throws {
        self.keeper = keeper
        guard let line = try keeper.readLine(), let pid = Int32(line) else { throw Failure("network", "it was not started.") }
        id = ProcessID(pid)
    }

    deinit { _ = try? end() }

    /// SIGTERM, and its exit status: 128 + N where signal N ended it.
    @discardableResult
    func end() throws -> ExitStatus {
        keeper.signal(SIGTERM)
        do { return try keeper.wait(timeout: .seconds(10)) } catch {
            keeper.closeInput()
            return try keeper.wait()
        }
    }

    /// Sends a signal to the program alone. Never once its keeper ended: the number may be somebody else's by then.
    func signal(_ number: Int32) throws {
        if try keeper.poll() == nil { kill(id.value, number) }
    }

    /// The next line it prints.
    func readLine(timeout: Duration = .seconds(30)) throws -> String? { try keeper.readLine(timeout: timeout) }

    var isRunning: Bool { get throws { try keeper.poll() == nil } }
}

/// Waits until something holds; a failure after ten seconds says what did not.
func wait(for what: String, seconds: Int = 10, until condition: () throws -> Bool) throws {
    let deadline = ContinuousClock.now + .seconds(seconds)
    while try !condition() {
        guard ContinuousClock.now < deadline else { throw Failure("network", "within \(seconds) s there was no \(what).") }
        usleep(2000)
    }
}
