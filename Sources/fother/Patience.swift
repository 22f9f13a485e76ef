// How long `apply` and `revert` may take, and may hold a process.

import ArgumentParser
import ELF
import LivePatchApplier

struct Patience: ParsableArguments {
    @Option(help: "Seconds to wait for a safe moment in each process.") var timeout = 10.0
    @Option(help: "Milliseconds that a process may stand still at a time; a stop that takes longer is given up.") var pauseBudget = 500.0

    /// Failure: `not-a-time`.
    func budget() throws(Failure) -> TransitionBudget {
        for (name, value) in [("--timeout", timeout), ("--pause-budget", pauseBudget)] where !(value > 0 && value <= 86_400_000) {
            throw Failure("not-a-time", "\(value) is not a time to wait.", at: name, remedy: "Give a number above zero.")
        }
        return TransitionBudget(attemptsMax: .max, timeout: .seconds(timeout), pause: .milliseconds(pauseBudget))
    }
}
