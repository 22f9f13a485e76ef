// What a debugger must be told about the patched code in one process.

import ELF
import LivePatch
import ProcessControl

public struct ProcessSymbols: Sendable {
    public var file: SymbolFile
    /// Patches that the file describes.
    public var patches: [PatchID]
    /// Mappings of patches that it does not describe, and why.
    public var untold: [Failure]

    /// Looks at `view` again for unwind data of the old code.
    public init(_ view: ProcessView, held: (PatchID) -> LivePatch?) throws(Failure) {
        let memory = try ProcessHandle(view.id).memory()
        let tables = UnwindTables()
        var pieces: [SymbolFile.Piece] = []
        patches = []
        untold = []
        for found in view.patches {
            if case .unfinished = found.state { continue }
            guard let plan = found.plan, let patch = held(plan.patch) else {
                if case .couldNotTell(let failure) = found.state { untold.append(failure) }
                continue
            }
            let object = view.objects.first { $0.buildID == patch.buildID && $0.bias == plan.bias }
            let table = object.flatMap { tables.table(of: $0, in: memory) }
            pieces.append(SymbolFile.Piece(patch, plan) { address in table?.row(at: plan.bias.link(address)) })
            patches.append(plan.patch)
        }
        file = SymbolFile(pieces)
    }
}
