// Makes a patch's unwind data known to the unwinder in the process, so that exceptions, backtrace(3) and thread cancellation
// go through patched code, and takes it back before the memory goes.

import ELF
import LivePatch
import MachineCode
import ProcessControl

/// Whether the process can unwind through a patch.
public enum FrameState: Sendable {
    /// Its unwinder knows the patch's unwind data.
    case registered
    /// Nothing in the process unwinds yet. When it loads an unwinder, the next `apply` registers.
    case noUnwinder
    case notRegistered(Failure)

    /// The unwinder may point into the patch's memory, now or when a thread comes to it: the memory must stay.
    var mayHoldMemory: Bool {
        switch self {
        case .registered: true
        case .noUnwinder: false
        case .notRegistered(let failure): !["no-registrable-unwinder", "no-thread-for-call", "shadow-stack"].contains(failure.code)
        }
    }

    /// For JSON and people.
    public var word: String {
        switch self {
        case .registered: "registered"
        case .noUnwinder: "no-unwinder"
        case .notRegistered: "not-registered"
        }
    }
}

extension Applier {
    /// How long a thread is looked for that can register, where the patch can do without.
    static let framesPatience: Duration = .milliseconds(250)

    /// Failure: `no-registrable-unwinder`, for a patch that exceptions pass through.
    func requireUnwinder(_ target: Target) throws(Failure) {
        switch Unwinder.find(target.objects.map { Exports($0, target.memory) }, target.process) {
        case .one: return
        case .unusable(let failure): throw failure
        case .none:
            throw Failure(
                "no-registrable-unwinder",
                "exceptions may pass through the patched code, and no unwinder that can be told of it is loaded.",
                at: "process \(target.process)", remedy: "Restart it with the fixed package.")
        }
    }

    /// Registers unless that was done before. Nil when the patch has no unwind data. The mapping must be complete; whatever is
    /// answered but `.noUnwinder`, it must stay mapped: a thread may be on its way.
    func registerFrames(_ plan: ApplyPlan, _ target: Target, patience: Duration) -> FrameState? {
        guard let registration = plan.registration else { return nil }
        do {
            let exports = target.objects.map { Exports($0, target.memory) }
            let unwinder: Unwinder
            switch Unwinder.find(exports, target.process) {
            case .none: return .noUnwinder
            case .unusable(let failure): return .notRegistered(failure)
            case .one(let one): unwinder = one
            }
            let block = registration.block
            func word(_ offset: Int) throws -> UInt64 {
                Bytes(try target.memory.read(at: block + offset, count: 8), name: "block").u64(0) ?? 0
            }
            func state() throws -> RegistrationStub.State? {
                .init(rawValue: UInt32(truncatingIfNeeded: try word(RegistrationStub.Block.stateOffset)))
            }
            let known = try word(RegistrationStub.Block.registerOffset)
            if known != 0, known != unwinder.register.value, try state() == .registered {
                // The unwinder that was told has gone, and its memory of it too.
                try target.memory.write([UInt8](repeating: 0, count: RegistrationStub.Block.size), at: block)
            }
            if try state() == .registered { return .registered }
            if try state() == RegistrationStub.State.unregistered {
                try target.memory.write(
                    little(unwinder.register) + little(unwinder.deregister), at: block + RegistrationStub.Block.registerOffset)
                let detour = Detour(
                    entry: registration.at + registration.stub.registerEntry, end: registration.at + registration.stub.registerEnd,
                    stackBytes: RegistrationStub.stackBytes, stackRoomBytes: RegistrationStub.stackRoomBytes)
                try send(through: detour, target, exports, unwinder, patience)
            }
            // Somebody else's thread may be at it.
            for round in 1...8 where try state() == .registering { tracer.rest(round) }
            if try state() == .registered {
                if Unwinder.hasNotes(in: block, target.memory) { return .registered }
                return .notRegistered(
                    Failure(
                        "frames-not-registered", "its unwinder was told of the patch and wrote nothing down.",
                        at: "process \(target.process)",
                        remedy: "Restart it with the fixed package."))
            }
            return .notRegistered(
                Failure(
                    "call-timeout", "a thread was sent to register the patch's unwind data and did not finish.",
                    at: "process \(target.process)", remedy: "Try again later."))
        } catch let failure as Failure {
            return .notRegistered(failure)
        } catch {
            return .notRegistered(Failure("unexpected", "\(error)", at: "process \(target.process)"))
        }
    }

    /// Takes the registration back. Nil when there is none any more; else why the memory must stay.
    func deregisterFrames(_ plan: ApplyPlan, _ target: Target) -> Failure? {
        func inUse(_ sentence: String) -> Failure { Failure("memory-in-use", sentence, at: "process \(target.process)") }
        guard let registration = plan.registration else { return nil }
        do {
            func state() throws -> UInt32? { Bytes(try target.memory.read(at: registration.block, count: 4), name: "block").u32(0) }
            switch RegistrationStub.State(rawValue: try state() ?? 0) {
            case .unregistered: return nil
            case .registered: break
            default: return inUse("a thread is telling the unwinder about it.")
            }
            let exports = target.objects.map { Exports($0, target.memory) }
            guard case .one(let unwinder) = Unwinder.find(exports, target.process),
                unwinder.lists(registration.block + RegistrationStub.Block.objectOffset, target.memory)
            else { return inUse("the unwinder was told about it, and cannot be proved to forget it.") }
            let detour = Detour(
                entry: registration.at + registration.stub.deregisterEntry, end: registration.at + registration.stub.deregisterEnd,
                stackBytes: RegistrationStub.stackBytes, stackRoomBytes: RegistrationStub.stackRoomBytes)
            try send(through: detour, target, exports, unwinder, budget.timeout)
            return try state() == RegistrationStub.State.unregistered.rawValue ? nil : inUse("the unwinder did not forget it in time.")
        } catch let failure as Failure {
            return failure
        } catch {
            return Failure("unexpected", "\(error)", at: "process \(target.process)")
        }
    }

    private func send(through detour: Detour, _ target: Target, _ exports: [Exports], _ unwinder: Unwinder, _ patience: Duration) throws {
        let maps = try target.handle.mappings()
        let outside = OutsideRuntime(
            exports, unwinder: unwinder.object, StackWalker(target, tables), StackMap(maps, of: target.process), target.memory)
        try tracer.send(through: detour, in: target.handle, maps: maps, timeout: patience) { outside.objection(to: $0) }
        checkpoint(.registered)
    }

    private func little(_ address: RuntimeAddress) -> [UInt8] { (0..<8).map { UInt8(truncatingIfNeeded: address.value >> UInt64(8 * $0)) } }
}

extension ProcessView {
    /// Whether the process can unwind through a patch that is in it; nil when the patch has no unwind data, or its mapping is
    /// not what it should be. Throws as `ProcessHandle` does.
    public func frames(of found: FoundPatch) throws -> FrameState? {
        guard let plan = found.plan, let registration = plan.registration else { return nil }
        if case .unfinished = found.state { return nil }
        let memory = try ProcessHandle(id).memory()
        guard let raw = try? memory.read(at: registration.block, count: 16) else {
            return .notRegistered(Failure("memory-unreadable", "its state cannot be read.", at: "process \(id)"))
        }
        switch Unwinder.find(objects.map { Exports($0, memory) }, id) {
        case .none: return .noUnwinder
        case .unusable(let failure): return .notRegistered(failure)
        case .one(let unwinder):
            let block = Bytes(raw, name: "block")
            if block.u32(0) == RegistrationStub.State.registered.rawValue, block.u64(8) == unwinder.register.value,
                Unwinder.hasNotes(in: registration.block, memory)
            {
                return .registered
            }
            return .notRegistered(
                Failure(
                    "frames-not-registered", "its unwinder was loaded after the patch, or could not be told.", at: "process \(id)",
                    remedy: "Apply the patch again."))
        }
    }
}
