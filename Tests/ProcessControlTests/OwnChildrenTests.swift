// Processes that the tests start themselves, looked at and ended as the program does it.
import ELF
import Glibc
import Testing

@testable import ProcessControl

@Suite struct ChildProcessTests {
    @Test func outputErrorsAndStatusAreTaken() throws {
        let result = try ChildProcess.run(["sh", "-c", "echo out; echo err >&2; exit 3"])
        #expect(result.outputText == "out\n")
        #expect(result.errorText == "err\n")
        #expect(result.status == .exited(3))
    }

    @Test func largeInputDoesNotDeadlockAgainstLargeOutput() throws {
        let bytes = [UInt8](repeating: 0x61, count: 3 << 20)
        let result = try ChildProcess.run(["cat"], input: bytes)
        #expect(result.output == bytes)
    }

    @Test func aToolThatDoesNotReadItsInputIsNotAnError() throws {
        let result = try ChildProcess.run(["true"], input: [UInt8](repeating: 1, count: 1 << 20))
        #expect(result.status.isSuccess)
    }

    @Test func environmentAndDirectoryReplaceOurOwn() throws {
        let result = try ChildProcess.run(["/bin/sh", "-c", "echo $COLOUR-$HOME; pwd"], environment: ["COLOUR=red"], directory: "/usr")
        #expect(result.outputText == "red-\n/usr\n")
    }

    @Test func aChildHasNoSignalBlocked() throws {
        let result = try ChildProcess.run(["grep", "SigBlk", "/proc/self/status"])
        #expect(result.outputText.contains("0000000000000000"))
    }

    /// Threads of the runtime have priorities of their own; what `nice fother` starts is as nice as it.
    @Test(arguments: [TaskPriority.high, .medium, .background]) func aChildIsAsNiceAsTheProgram(_ priority: TaskPriority) async throws {
        let asked = getpriority(__priority_which_t(PRIO_PROCESS.rawValue), id_t(getpid()))
        let said = try await Task.detached(priority: priority) { try ChildProcess.run(["nice"]).outputText }.value
        #expect(said == "\(asked)\n")
    }

    @Test func aMissingToolIsNamed() throws {
        let failure = #expect(throws: Failure.self) { try ChildProcess.run(["no-such-tool-anywhere"]) }
        #expect(failure?.code == "tool-not-started")
        #expect(failure?.place == "no-such-tool-anywhere")
    }

    @Test func aFailingToolIsQuoted() throws {
        let failure = #expect(throws: Failure.self) { try ChildProcess.runChecked(["sh", "-c", "echo no luck >&2; exit 1"]) }
        #expect(failure?.code == "tool-failed")
        #expect(failure?.sentence == "exit status 1: no luck")
    }

    @Test func tooMuchOutputEndsTheTool() throws {
        let failure = #expect(throws: Failure.self) { try ChildProcess.run(["yes"], limitBytes: 1 << 20) }
        #expect(failure?.code == "tool-output-too-long")
    }

    @Test func aToolThatHangsIsEnded() throws {
        let failure = #expect(throws: Failure.self) { try ChildProcess.run(["sleep", "1000"], timeout: .milliseconds(50)) }
        #expect(failure?.code == "tool-timed-out")
    }

    @Test func linesComeOneByOneAndTheChildIsReaped() throws {
        let pid: ProcessID
        do {
            let child = try ChildProcess(["cat"], input: .pipe, output: .pipe)
            pid = child.id
            try child.write("one\ntwo\n")
            #expect(try child.readLine() == "one")
            #expect(try child.readLine() == "two")
            try child.write("tail")
            child.closeInput()
            #expect(try child.readLine() == "tail")
            #expect(try child.readLine() == nil)
            #expect(try child.wait(timeout: .seconds(10)) == .exited(0))
        }
        let failure = #expect(throws: Failure.self) { try ProcessHandle(pid) }
        #expect(failure?.saysProcessIsGone == true)
    }

    @Test func lettingGoOfAChildEndsIt() throws {
        let handle: ProcessHandle
        do {
            let child = try ChildProcess(["sleep", "1000"])
            handle = try ProcessHandle(child.id)
        }
        #expect(!handle.isAlive)
    }
}

@Suite struct ProcessHandleTests {
    @Test func everyProcessListedCanBeOpenedOrHasGone() throws {
        let processes = try listProcesses()
        #expect(processes.contains(ProcessID.own))
        #expect(processes == processes.sorted())
    }

    @Test func ourOwnMapsHoldOurExecutable() throws {
        let own = try ProcessHandle(.own)
        let program = try own.executablePath()
        let maps = try own.mappings()
        #expect(maps.contains { $0.path == program && $0.permissions.contains(.execute) })
        #expect(maps.contains { $0.path == "[stack]" })
        #expect(try own.status().threadGroup == .own)
        #expect(try own.threads().contains(ThreadID(ProcessID.own.value)))
    }

    @Test func commandLineAndActivityOfAChild() throws {
        let cat = try ChildProcess(["cat", "-"], input: .pipe, output: .pipe)
        try cat.write("ready\n")
        #expect(try cat.readLine() == "ready")
        let handle = try ProcessHandle(cat.id)
        #expect(try handle.commandLine() == ["cat", "-"])
        #expect(try handle.status().name == "cat")
        var activity = try handle.activity(of: ThreadID(cat.id.value))
        while activity == .running { activity = try handle.activity(of: ThreadID(cat.id.value)) }
        #expect(activity == .inSystemCall(0))
    }

    @Test func aProcessThatEndedIsGoneNotEmpty() throws {
        let child = try ChildProcess(["sleep", "1000"])
        let handle = try ProcessHandle(child.id)
        let memory = try handle.memory()
        let stack = try #require(try handle.mappings().first { $0.path == "[stack]" })
        child.signal(SIGKILL)
        try child.wait()
        for attempt in [
            { _ = try handle.mappings() }, { _ = try handle.status() }, { _ = try handle.threads() },
            { _ = try memory.read(at: stack.range.lowerBound, count: 8) },
            { try memory.write([1], at: stack.range.lowerBound) },
        ] as [() throws -> Void] {
            let failure = #expect(throws: Failure.self) { try attempt() }
            #expect(failure?.saysProcessIsGone == true)
        }
    }

    @Test func memoryOfAProgramThatReplacedItselfIsGone() throws {
        let child = try ChildProcess(["sh", "-c", "echo ready; read x; exec sleep 1000"], input: .pipe, output: .pipe)
        #expect(try child.readLine() == "ready")
        let handle = try ProcessHandle(child.id)
        let memory = try handle.memory()
        let stack = try #require(try handle.mappings().first { $0.path == "[stack]" })
        _ = try memory.read(at: stack.range.upperBound + -8, count: 8)
        try child.write("go\n")
        while try handle.status().name != "sleep" { usleep(1000) }
        let failure = #expect(throws: Failure.self) { try memory.read(at: stack.range.upperBound + -8, count: 8) }
        #expect(failure?.saysProcessIsGone == true)
    }

    @Test func executableMemoryOfARunningProcessCanBeWritten() throws {
        let child = try ChildProcess(["cat"], input: .pipe, output: .pipe)
        try child.write("ready\n")
        #expect(try child.readLine() == "ready")
        let handle = try ProcessHandle(child.id)
        let memory = try handle.memory()
        let text = try #require(try handle.mappings().first { $0.permissions == [.read, .execute] && $0.isFile })
        let last = text.range.upperBound + -4
        let before = try memory.read(at: last, count: 4)
        try memory.write([1, 2, 3, 4], at: last)
        #expect(try memory.read(at: last, count: 4) == [1, 2, 3, 4])
        try memory.write(before, at: last)
        try child.write("alive\n")
        #expect(try child.readLine() == "alive")
    }

    @Test func unmappedMemoryIsNamed() throws {
        let memory = try ProcessHandle(.own).memory()
        let failure = #expect(throws: Failure.self) { try memory.read(at: RuntimeAddress(16), count: 8) }
        #expect(failure?.code == "memory-unreadable")
        let overflow = #expect(throws: Failure.self) { try memory.read(at: RuntimeAddress(UInt64.max - 2), count: 8) }
        #expect(overflow?.code == "memory-unreadable")
    }

    @Test func notPermittedAndGoneAreDifferentAnswers() {
        let denied = processFailure(Errno(Int64(-EACCES)), ProcessID(7), "maps")
        #expect(denied.saysProcessIsUnreadable && !denied.saysProcessIsGone)
        let gone = processFailure(Errno(Int64(-ESRCH)), ProcessID(7), "maps")
        #expect(gone.saysProcessIsGone && !gone.saysProcessIsUnreadable)
        #expect(denied.place.contains("/proc/7/maps"))
    }
}
