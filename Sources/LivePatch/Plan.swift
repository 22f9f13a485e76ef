// What applying a patch to one instance would write, as a value that can be printed, tested and carried out.

import ELF
import MachineCode

/// How the patch's one mapping is divided. All sizes are whole pages, in this order.
public struct PatchLayout: Equatable, Sendable {
    public static let page = 4096

    public var header: Range<Int>
    /// The patch's code and, from `stubs` on, a commit stub for each site.
    public var text: Range<Int>
    public var stubs: Int
    /// In the text, behind the stubs: what a thread that registers the unwind data runs. Nil without unwind data.
    public var registration: Int?
    /// In the data, at its end: what such a thread works on. Nil without unwind data.
    public var registrationBlock: Int?
    /// Read-only data, unwind information and relocated read-only data.
    public var readOnly: Range<Int>
    /// Writable data, zeroed data at its end.
    public var data: Range<Int>
    public var size: Int { data.upperBound }
    /// Offset of each part from the start of the mapping, by `Part.rawValue`.
    public var partOffset: [Int]

    public init(_ contents: PatchContents) {
        func pages(_ n: Int) -> Int { (n + Self.page - 1) & ~(Self.page - 1) }
        func aligned(_ n: Int) -> Int { (n + 63) & ~63 }
        let hooks = contents.replacements.count { $0.isHooked }, bridges = contents.replacements.count { !$0.bridgeBytes.isEmpty }
        header = 0..<pages(TargetHeader.size(sites: hooks + bridges))
        stubs = header.upperBound + aligned(contents.size(.text))
        let hasFrames = contents.size(.unwind) > 0
        registration = hasFrames ? stubs + hooks * CommitStub.size : nil
        let textEnd = stubs + hooks * CommitStub.size + (hasFrames ? RegistrationStub.size : 0)
        text = header.upperBound..<header.upperBound + pages(textEnd - header.upperBound)
        let unwind = text.upperBound + aligned(contents.size(.readOnly))
        // A zero word behind the unwind records ends them for whoever reads them in memory.
        let relro = unwind + aligned(contents.size(.unwind) + 4)
        readOnly = text.upperBound..<text.upperBound + pages(relro + contents.size(.relro) - text.upperBound)
        let zero = readOnly.upperBound + aligned(contents.size(.data))
        let block = zero + aligned(contents.size(.zero))
        registrationBlock = hasFrames ? block : nil
        let dataEnd = hasFrames ? block + RegistrationStub.Block.size : zero + contents.size(.zero)
        data = readOnly.upperBound..<readOnly.upperBound + pages(dataEnd - readOnly.upperBound)
        partOffset = [text.lowerBound, text.upperBound, unwind, relro, readOnly.upperBound, zero]
    }
}

/// A jump to be written, with what must be there before. All of a patch lead to commit stubs, so that they change nothing by
/// themselves.
public struct PlannedSite: Equatable, Sendable {
    public enum Kind: Equatable, Sendable {
        /// At a function's entry. `isSplit`: old instructions begin inside the bytes, so that a thread may stand between them.
        case entry(isSplit: Bool)
        /// In the padding before a function; the two-byte jump at its entry leads here.
        case bridge
    }
    public var function: String
    public var address: RuntimeAddress
    public var old: [UInt8]
    public var new: [UInt8]
    public var kind: Kind

    /// Where no thread may stand, or return to, when the bytes change.
    public var window: Range<RuntimeAddress> {
        switch kind {
        case .entry: address + 1..<address + new.count
        // Nobody runs the padding, but a thread may be between the two jumps.
        case .bridge: address..<address + new.count
        }
    }
    public var isEntry: Bool { kind != .bridge }
    /// What stands in a bridge's place after it was taken away while threads ran: whoever has just come to it runs on into the
    /// function's start. The padding that was there need not decode from its beginning.
    public static let emptyBridge: [UInt8] = [0x0f, 0x1f, 0x44, 0x00, 0x00]
    /// Bytes that mean that no jump is here.
    public var vacant: [[UInt8]] { isEntry ? [old] : [old, Self.emptyBridge] }
    /// A write across a page boundary is two writes.
    public var straddlesPage: Bool { address.value / 4096 != (address + (new.count - 1)).value / 4096 }
}

/// An old function that no thread may be in, or return into, while sites change.
public struct GuardedFunction: Equatable, Sendable {
    public var name: String
    public var range: Range<RuntimeAddress>
    /// SHA-256 of its bytes in the old build.
    public var hash: [UInt8]
}

public struct ApplyPlan: Sendable {
    public var patch: PatchID
    public var buildID: BuildID
    public var bias: LoadBias
    /// Where the mapping begins.
    public var base: RuntimeAddress
    public var layout: PatchLayout
    /// Relocated bytes of each division, whole pages.
    public var text: [UInt8]
    public var readOnly: [UInt8]
    /// Initial data; live data is never compared with it.
    public var data: [UInt8]
    public var header: TargetHeader
    /// In the order in which they are written; taken back in reverse.
    public var sites: [PlannedSite]
    public var guarded: [GuardedFunction]
    public var consistency: Consistency

    /// The patch's code and its stubs.
    public var newCode: Range<RuntimeAddress> { base + layout.text.lowerBound..<base + layout.text.upperBound }
    /// The byte that decides between old and new for all sites at once.
    public var commit: RuntimeAddress { base + TargetHeader.commitOffset }
    /// The byte that says that no thread is in old code any more.
    public var effective: RuntimeAddress { base + TargetHeader.effectiveOffset }
    public var mapping: Range<RuntimeAddress> { base..<base + layout.size }
    /// Where pages are prepared that replace pages of the object in one step: behind the mapping.
    public var spare: RuntimeAddress { base + layout.size }
    /// Pages of the object that get a jump, in order.
    public var sitePages: [RuntimeAddress] {
        let page = UInt64(PatchLayout.page)
        return Set(sites.flatMap { [$0.address, $0.address + ($0.new.count - 1)] }.map { $0.value / page * page }).sorted().map {
            RuntimeAddress($0)
        }
    }
}

extension LivePatch {
    /// Links the patch for an instance loaded with `bias`, its mapping at `base` (page-aligned).
    /// `imports`: where each of the patch's imports is in that process.
    /// Throws `out-of-range` when a distance does not fit 32 bits: choose another base; `import-unresolved`.
    public func plan(
        bias: LoadBias, base: RuntimeAddress, imports: [String: RuntimeAddress] = [:], acceptances: [Acceptance] = []
    ) throws(Failure) -> ApplyPlan {
        let layout = PatchLayout(contents)
        func outOfRange(_ what: String) -> Failure {
            Failure(
                "out-of-range", "\(what) is more than 2 GiB from its target.", at: "patch \(id.short) at \(base)",
                remedy: "No free address range near the object was found; restart the process to close the hole.")
        }
        var image = [UInt8](repeating: 0, count: layout.size)
        for part in Part.allCases where part != .zero {
            let start = layout.partOffset[part.rawValue]
            image.replaceSubrange(start..<start + contents[part].count, with: contents[part])
        }
        for r in contents.relocations {
            let symbol: RuntimeAddress
            switch contents.symbols[r.symbol].place {
            case .old(let a): symbol = bias.runtime(a)
            case .part(let part, let offset): symbol = base + layout.partOffset[part.rawValue] + offset
            case .imported:
                guard let place = imports[contents.symbols[r.symbol].name] else {
                    throw Failure(
                        "import-unresolved", "no address is known for it.", at: contents.symbols[r.symbol].name,
                        remedy: "Restart the process with the fixed package.")
                }
                symbol = place
            }
            let at = layout.partOffset[r.part.rawValue] + r.offset
            let value = symbol.value &+ UInt64(bitPattern: r.addend)
            switch r.kind {
            case .abs64:
                for i in 0..<8 { image[at + i] = UInt8(truncatingIfNeeded: value >> UInt64(8 * i)) }
            case .pc32:
                guard let distance = Int32(exactly: Int64(bitPattern: value &- (base + at).value)) else {
                    throw outOfRange("\(contents.symbols[r.symbol].name)")
                }
                let d = UInt32(bitPattern: distance)
                for i in 0..<4 { image[at + i] = UInt8(truncatingIfNeeded: d >> UInt32(8 * i)) }
            }
        }

        var sites: [PlannedSite] = []
        var guarded: [GuardedFunction] = []
        var stubs = 0
        for (r, function) in zip(contents.replacements, contents.manifest.functions) {
            guard let old = r.old else { continue }
            let start = bias.runtime(old)
            guarded.append(GuardedFunction(name: function.name, range: start..<start + r.oldSize, hash: r.oldHash))
            guard r.isHooked else { continue }
            let site = start + r.siteOffset
            let stub = base + layout.stubs + stubs * CommitStub.size
            guard
                let code = CommitStub.code(
                    at: stub, site: site, covering: r.jumpLength, oldCode: r.oldSiteBytes,
                    new: base + layout.text.lowerBound + r.newOffset, commit: base + TargetHeader.commitOffset)
            else {
                throw Failure(
                    "site-not-movable", "the instructions at its entry cannot be moved to make room for a jump.", at: function.name,
                    remedy: "Restart the process with the fixed package.")
            }
            image.replaceSubrange(layout.stubs + stubs * CommitStub.size..<layout.stubs + (stubs + 1) * CommitStub.size, with: code)
            stubs += 1
            let bridge = start + -Jump.length
            guard let jump = Jump.bytes(from: r.bridgeBytes.isEmpty ? site : bridge, to: stub) else { throw outOfRange(function.name) }
            let entry = r.bridgeBytes.isEmpty ? jump : Jump.shortBytes(toBridgeBeforeFunctionFrom: r.siteOffset)
            let isSplit = decode(r.oldSiteBytes[...]).instructions.first.map { $0.length < entry.count } ?? true
            // The bridge before the entry that leads there.
            if !r.bridgeBytes.isEmpty {
                sites.append(PlannedSite(function: function.name, address: bridge, old: r.bridgeBytes, new: jump, kind: .bridge))
            }
            let planned = PlannedSite(
                function: function.name, address: site, old: Array(r.oldSiteBytes.prefix(entry.count)), new: entry,
                kind: .entry(isSplit: isSplit))
            guard !planned.straddlesPage else {
                throw Failure(
                    "site-straddles-page", "its entry lies across a page boundary, where the jump cannot be written in one piece.",
                    at: function.name, remedy: "Restart the process with the fixed package.")
            }
            sites.append(planned)
        }
        if let registration = layout.registration, let block = layout.registrationBlock {
            let unwind = base + layout.partOffset[Part.unwind.rawValue]
            guard let stub = RegistrationStub(at: base + registration, block: base + block, begin: unwind) else {
                throw outOfRange("its unwind data")
            }
            image.replaceSubrange(registration..<registration + RegistrationStub.size, with: stub.bytes)
        }
        let text = Array(image[layout.text])
        let header = TargetHeader(
            phase: .prepared, isCommitted: false, patch: id, buildID: buildID, bias: bias, size: layout.size,
            codeHash: sha256(text[...]), sites: sites.map { .init(address: $0.address, old: $0.old, new: $0.new) },
            acceptances: acceptances)
        return ApplyPlan(
            patch: id, buildID: buildID, bias: bias, base: base, layout: layout, text: text,
            readOnly: Array(image[layout.readOnly]), data: Array(image[layout.data]), header: header, sites: sites,
            guarded: guarded, consistency: contents.manifest.consistency)
    }
}
