// One look at one process: who it is, what is loaded, which patches are in it. The basis of `ps`, and of finding every
// instance of a build.

import ELF
import LivePatch
import ProcessControl

public struct ProcessView: Sendable {
    public var id: ProcessID
    public var status: ProcessStatus
    /// Path of the program as its own root shows it; nil when that cannot be read.
    public var program: String?
    public var objects: [LoadedObject]
    public var patches: [FoundPatch]

    /// Looks at a process. Throws `process-gone`, `process-unreadable` and the like.
    public init(_ id: ProcessID, held: (PatchID) -> LivePatch?) throws {
        let handle = try ProcessHandle(id)
        self.id = id
        status = try handle.status()
        program = try? handle.executablePath()
        guard !status.isKernelThread, !status.isProcessEnded else {
            objects = []
            patches = []
            return
        }
        let maps = try handle.mappings(), memory = try handle.memory()
        objects = Instances.objects(in: maps, of: memory)
        patches = PatchStates.find(in: maps, of: memory, objects: objects, held: held)
        // What could not be read because the process ended is not "not there".
        try memory.requireAlive()
    }
}

extension ProcessView {
    /// How many copies of the build that `patch` is for are loaded and do not have it in force. A process can load a second
    /// copy at any time (dlmopen, a copied file): the first one's patch says nothing about it.
    public func copies(without patch: LivePatch) -> Int {
        let biases = Set(objects.filter { $0.buildID == patch.buildID }.map(\.bias))
        let patched = patches.compactMap { p -> LoadBias? in
            if case .patched = p.state, p.header?.patch == patch.id { p.header?.bias } else { nil }
        }
        return biases.subtracting(patched).count
    }
}

/// Every process, each with a view of it or the reason why there is none. Processes that end meanwhile are left out.
public struct ProcessScan: Sendable {
    public var views: [ProcessView] = []
    /// Processes that may run anything: looking was not permitted, or failed.
    public var unreadable: [(id: ProcessID, failure: Failure)] = []

    /// What came out of looking at one process.
    public typealias Look = Result<ProcessView, any Error>

    /// `only`: these processes instead of all. `except`: who was looked at before. `each`: looks at all of them, one after the other or
    /// several at once; its answer is in their order. Throws `proc-unreadable`.
    public init(
        only: [ProcessID]? = nil, except: Set<ProcessID> = [], held: @escaping @Sendable (PatchID) -> LivePatch?,
        each: ([ProcessID], @escaping @Sendable (ProcessID) -> Look) -> [Look] = { $0.map($1) }
    ) throws(Failure) {
        let all: [ProcessID]
        if let only { all = only } else { all = try listProcesses() }
        let ids = all.filter { $0 != ProcessID.own && !except.contains($0) }
        for (id, look) in zip(ids, each(ids) { Self.look($0, held) }) {
            switch look {
            case .success(let view):
                if !view.status.isKernelThread, !view.status.isProcessEnded { views.append(view) }
            case .failure(let failure as Failure):
                if !failure.saysProcessIsGone || only != nil { unreadable.append((id, failure)) }
            case .failure(let error):
                unreadable.append((id, Failure("unexpected", "\(error)", at: "process \(id)")))
            }
        }
    }

    private static func look(_ id: ProcessID, _ held: (PatchID) -> LivePatch?) -> Look {
        do { return .success(try ProcessView(id, held: held)) } catch { return .failure(error) }
    }
}
