// Decides where the patch is entered: at the old functions that anything outside the patch can still reach.

import ELF
import LivePatch
import MachineCode

struct Hooks {
    /// New indices of hooked functions.
    private(set) var hooked: Set<Int> = []
    /// By new index: offset of the jump from the old function's start, and the padding before it where the jump needs a bridge.
    private(set) var sites: [Int: (offset: Int, bridge: [UInt8])] = [:]
    private(set) var consistency: Consistency
    private(set) var findings: [Finding] = []
    /// New indices of functions with refusing findings.
    var refused: Set<Int> { Set(findings.filter { $0.verdict == .refuse }.compactMap { indexOf[$0.function] }) }
    private var indexOf: [String: Int] = [:]

    init(_ c: Comparison, _ moved: MovedCode, oldTaken: Set<Int>) {
        consistency = Consistency(.together, because: "")
        let entered = Self.enteredFromOutside(c, moved)
        let padding = EntryPadding(c.old, before: moved.functions.compactMap { c.match.oldOf[$0] })
        // Code that stays and is not understood throughout may call anything.
        let isUnclear = c.old.functions.contains { f in
            f.undecodedAt != nil && !(c.match.newOf[f.index].map { moved.contains($0) } ?? false)
        }
        let atStart = Self.runAtStart(c.old)
        let before = Signature(c.old), after = Signature(c.new)
        for n in moved.functions {
            // What moves only because a part of it changed is entered like the rest: its unchanged code leads to the new part.
            guard let o = c.match.oldOf[n] else { continue }
            let a = c.old.functions[o], name = c.new.name(n)
            let taken = oldTaken.contains(o)
            guard a.isExported || !a.names.isEmpty && c.match.basis[n] == .name || entered[o] != nil || taken || isUnclear else { continue }
            hooked.insert(n)
            indexOf[name] = n
            guard c.match.basis[n].map({ $0 <= .references }) ?? false else {
                findings.append(
                    Finding(
                        "unconfirmed-function", name,
                        "it is known to be \(c.old.name(o)) of the old build only by \(c.match.basis[n] == .order ? "its place" : "likeness").",
                        remedy: "A build with symbols.", verdict: .refuse))
                continue
            }
            if atStart.contains(o) {
                findings.append(
                    Finding(
                        "runs-at-start", name, "the loader runs it when the object is loaded; running processes have that behind them.",
                        remedy: "Decide whether what it did matters later; if so, restart.", verdict: .review))
            }
            if a.frame == nil, a.names.isEmpty {
                findings.append(
                    Finding(
                        "uncovered-code", name, "it changed, and no unwind data covers it.",
                        remedy: "Install the fixed package and restart.",
                        verdict: .refuse))
            }
            switch PatchSite.find(in: a.instructions, size: a.size, roomBefore: padding.room(before: o).count, roomAfter: a.roomAfter) {
            case .at(let offset, let isBridged):
                sites[n] = (offset, isBridged ? padding.room(before: o).suffix(Jump.length) : [])
                let length = isBridged ? Jump.shortLength : Jump.length
                if let why = Self.unwritable(c.old, a.start + offset, length) {
                    findings.append(
                        Finding(why.code, name, why.sentence, remedy: "Install the fixed package and restart.", verdict: .refuse))
                }
            case .tooShort:
                findings.append(
                    Finding(
                        "function-too-short", name, "it is \(a.size) bytes long: no room for a jump.",
                        remedy: "Install the fixed package and restart.", verdict: .refuse))
            case .branchesInto(let offset):
                findings.append(
                    Finding(
                        "site-branched-into", name, "the branch at +\(hex(offset)) goes into the bytes the jump would take.",
                        remedy: "Install the fixed package and restart.", verdict: .refuse))
            }
            // Who calls through a pointer passes what the type of the pointer says; old objects hold such pointers.
            if taken, before.arguments(o) != after.arguments(n) {
                let dropped = before.arguments(o) & ~after.arguments(n)
                findings.append(
                    Finding(
                        "signature-changed", name,
                        "it is called through pointers, and the arguments it reads changed from \(Signature.names(before.arguments(o))) to \(Signature.names(after.arguments(n))).",
                        remedy: "Check in the source that its type is the same in both versions.",
                        verdict: dropped == 0 ? .review : .refuse))
            }
        }
        let hooks = moved.functions.filter { hooked.contains($0) }.compactMap { c.match.oldOf[$0] }
        let bodies = moved.functions.compactMap { c.match.oldOf[$0] }
        consistency = Self.consistency(c.old, hooks: hooks, moved: bodies, taken: oldTaken)
        for f in c.old.functions where c.match.newOf[f.index] == nil && (oldTaken.contains(f.index) || f.isExported) {
            findings.append(
                Finding(
                    "removed-function", c.old.name(f.index),
                    "the new build has no such function, and something outside the patch may still call it.",
                    remedy: "Install the fixed package and restart.", verdict: .refuse))
        }
    }

    /// One store switches calls, not call trees: an old body that is still running may call a new function. That is harmless
    /// when there is one hook, or when every hook is entered by strangers only, who rely on nothing but its interface.
    private static func consistency(_ image: CodeImage, hooks: [Int], moved: [Int], taken: Set<Int>) -> Consistency {
        guard hooks.count > 1 else { return Consistency(.perCall, because: "one function is entered, and its callers stay as they are.") }
        for h in hooks where !image.functions[h].isExported && !taken.contains(h) {
            return Consistency(.together, because: "\(image.name(h)) is local: its callers may know more of it than its interface.")
        }
        // Through functions that stay, too. Calls by pointer are calls by strangers.
        let targets = Set(hooks)
        for body in moved {
            var seen: Set<Int> = [body], next = [body]
            while let f = next.popLast() {
                for g in image.directCallees(of: f) where seen.insert(g).inserted {
                    if targets.contains(g) {
                        return Consistency(.together, because: "the old \(image.name(body)) can call \(image.name(g)), which changes too.")
                    }
                    next.append(g)
                }
            }
        }
        return Consistency(
            .perCall, because: "each of the \(hooks.count) functions is exported or called by pointer, and none leads to another.")
    }

    /// What the applier could not do at a site, seen from its bytes: any nearby place stands for the stub's.
    static func unwritable(_ image: CodeImage, _ site: LinkAddress, _ length: Int) -> (code: String, sentence: String)? {
        if site.value / 4096 != (site + (length - 1)).value / 4096 {
            return ("site-straddles-page", "its entry lies across a page boundary, where the jump cannot be written in one piece.")
        }
        let place = RuntimeAddress(site.value)
        let code =
            image.file.read(site, Replacement.siteBytes)
            ?? image.file.read(site, image.file.section(at: site).map { min(Replacement.siteBytes, $0.end - site) } ?? 0)
        guard let code, MovedInstructions(Array(code), covering: length, from: place, to: place + 0x10000) != nil else {
            return ("site-not-movable", "the instructions at its entry cannot be moved to make room for a jump.")
        }
        return nil
    }

    /// Constructors and the resolvers of indirect functions.
    private static func runAtStart(_ image: CodeImage) -> Set<Int> {
        var result: Set<Int> = []
        for r in image.file.relocations {
            let isConstructor = image.file.section(at: r.address)?.name.hasSuffix("init_array") ?? false
            guard isConstructor || r.type == Relocation.irelative else { continue }
            if let f = image.target(of: r).flatMap(image.function) { result.insert(f) }
        }
        for s in image.file.dynamicSymbols where s.kind == .indirectFunction && s.isDefined {
            if let f = image.function(at: s.value) { result.insert(f) }
        }
        return result
    }

    /// Old functions that some old function outside the patch calls or jumps to, with one such caller.
    private static func enteredFromOutside(_ c: Comparison, _ moved: MovedCode) -> [Int: Int] {
        var result: [Int: Int] = [:]
        for f in c.old.functions {
            if let n = c.match.newOf[f.index] {
                guard !moved.contains(n) else { continue }
            } else {
                // Gone from the new build: nothing kept calls it, so it never runs again.
                continue
            }
            for r in f.references where r.kind.isBranch { if let g = c.old.function(at: r.target), g != f.index { result[g] = f.index } }
            if let g = c.old.fallsInto(f.index) { result[g] = f.index }
            // Bytes between functions may be code that does not decode from where decoding began.
            guard f.frame == nil, f.names.isEmpty, let code = c.old.file.read(f.start, f.size) else { continue }
            let bytes = Bytes(Array(code), name: "code")
            for at in 0..<max(0, f.size - 3) {
                guard let distance = bytes.i32(at) else { break }
                let target = f.start + (at + 4 + Int(distance))
                if let g = c.old.function(at: target), g != f.index, c.old.functions[g].start == target { result[g] = f.index }
            }
        }
        return result
    }
}
