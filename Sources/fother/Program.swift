// How every command ends: its exit code, or a failure told on standard error.

import ArgumentParser
import ELF
import Foundation

enum Program {
    /// Runs a command's body and leaves with its exit code.
    static func run(_ body: () throws -> Int32) throws {
        let code: Int32
        do { code = try body() } catch let failure as Failure {
            Output.progressDone()
            Output.complain(failure)
            let isPermission = ["not-permitted", "process-unreadable", "store-unwritable"].contains(failure.code) && geteuid() != 0
            throw ExitCode(isPermission ? Exit.noPermission : Exit.error)
        }
        if code != 0 { throw ExitCode(code) }
    }
}
