// The unwind data of a patch where it is mapped, and the names in it: what a debugger and a stack walk need to know.

import ELF
import MachineCode

/// A named range of code of a patch in a process.
public struct PlacedName: Hashable, Sendable {
    public var name: String
    public var address: RuntimeAddress
    public var size: Int
}

extension ApplyPlan {
    /// Where the patch's unwind records are; empty when it has none.
    public var unwind: Range<RuntimeAddress> {
        base + layout.partOffset[Part.unwind.rawValue]..<base + layout.partOffset[Part.relro.rawValue]
    }

    /// How the patch's own code is unwound. Addresses in it are run addresses: there is no load bias.
    public var frames: UnwindTable? {
        let start = unwind.lowerBound - (base + layout.readOnly.lowerBound)
        let bytes = Bytes(readOnly, name: "patch \(patch.short)")
        return try? UnwindTable(bytes, start..<start + (unwind.upperBound - unwind.lowerBound), at: LinkAddress(unwind.lowerBound.value))
    }
}

extension ApplyPlan {
    /// What a thread runs that registers the patch's unwind data, and the memory that belongs to it; nil without unwind data.
    public var registration: (stub: RegistrationStub, at: RuntimeAddress, block: RuntimeAddress)? {
        guard let offset = layout.registration, let block = layout.registrationBlock,
            let stub = RegistrationStub(at: base + offset, block: base + block, begin: unwind.lowerBound)
        else { return nil }
        return (stub, base + offset, base + block)
    }
}

extension LivePatch {
    /// Exceptions may pass through it: so its manifest says, or its unwind data names handlers.
    public var needsUnwinder: Bool { manifest.needsUnwinder == true }

    /// The functions of the patch, and the commit stub of each that is entered: `NAME.commit`.
    public func names(in plan: ApplyPlan) -> [PlacedName] {
        var names: [PlacedName] = []
        for s in contents.symbols where s.isFunction && s.size > 0 {
            guard case .part(.text, let offset) = s.place else { continue }
            // Debuggers take what follows an @ for a version.
            let name = String(s.name.map { $0 == "@" ? "." : $0 })
            names.append(PlacedName(name: name, address: plan.newCode.lowerBound + offset, size: s.size))
        }
        for entry in entries(in: plan) {
            names.append(PlacedName(name: entry.function + ".commit", address: entry.stub, size: CommitStub.size))
        }
        return names.sorted { ($0.address, $0.name) < ($1.address, $1.name) }
    }

    /// Where the old code of each hooked function goes on after the commit stub has taken over its first instructions.
    struct Entry {
        var function: String
        /// Where the jump is written.
        var site: RuntimeAddress
        var stub: RuntimeAddress
        var replacement: Replacement
    }

    func entries(in plan: ApplyPlan) -> [Entry] {
        let hooked = zip(contents.replacements, contents.manifest.functions).filter { $0.0.isHooked }
        return hooked.enumerated().compactMap { i, pair in
            let (r, function) = pair
            return r.old.map {
                Entry(
                    function: function.name, site: plan.bias.runtime($0) + r.siteOffset,
                    stub: plan.base + plan.layout.stubs + i * CommitStub.size, replacement: r)
            }
        }
    }
}
