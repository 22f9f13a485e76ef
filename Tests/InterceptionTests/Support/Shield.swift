// `fother shield run` on one machine of a test's network.

import ELF
import Foundation
import ProcessControl

final class Shield: Sendable {
    static let program = URL(fileURLWithPath: CommandLine.arguments[0]).deletingLastPathComponent().appendingPathComponent("fother").path

    let machine: Machine
    let folder: TemporaryFolder
    let process: RunningProgram
    private let ruleFile: String

    /// Starts it and waits until it filters.
    init(_ machine: Machine, rules: String = Evasion.rules, ports: [String] = ["80"], _ options: [String] = []) throws {
        self.machine = machine
        folder = try TemporaryFolder("shield")
        ruleFile = try folder.write("test.rules", rules)
        process = try machine.start(
            [Self.program, "shield", "run", "--rules", ruleFile, "--run-dir", folder.path + "/run", "--events", folder.path + "/events"]
                + ports.flatMap { ["--port", $0] } + options)
        try wait(for: "shield", seconds: 60) {
            guard try process.isRunning else { throw Failure("network", "the shield ended instead of starting.") }
            return try ask("status", "--json").status.isSuccess
        }
    }

    func ask(_ arguments: String...) throws -> ChildOutput {
        try machine.attempt([Self.program, "shield"] + arguments + ["--run-dir", folder.path + "/run"])
    }

    func reload(rules: String) throws {
        _ = try folder.write("test.rules", rules)
        let output = try ask("reload")
        guard output.status.isSuccess else { throw Failure("network", "reload: \(output.errorText)") }
    }

    /// Every event so far, a line of JSON each.
    var events: [String] {
        ((try? String(contentsOfFile: folder.path + "/events", encoding: .utf8)) ?? "").split(separator: "\n").map(String.init)
    }

    /// What it says about itself.
    func status() throws -> [String: Any] {
        let output = try ask("status", "--json")
        return try JSONSerialization.jsonObject(with: Data(output.output)) as? [String: Any] ?? [:]
    }
}
