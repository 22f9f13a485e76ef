// The emergency switch for a hole without a fix: a patch that makes one function return at once. What its callers make of that is
// looked at, call by call, and left to a person.

import ELF
import LivePatch
import MachineCode

/// How a caller in the same object treats the result.
public enum ResultUse: String, Sendable, Codable {
    /// It is compared or tested before anything else.
    case checked
    /// It is used as an address, unchecked.
    case followed
    case ignored
    case other
}

public struct Mitigation: Sendable {
    /// The patch file and its manifest, always under review; nil file where it is refused.
    public var result: BuildResult
    /// Calls in the object itself: the caller's name, and what it does with the result.
    public var callers: [(name: String, use: ResultUse)]
}

/// A patch that makes `function` return `value` at once. Failures: those of `build`, `function-not-found`.
public func mitigate(_ bytes: [UInt8], function name: String, returning value: Int64, _ context: BuildContext) throws(Failure) -> Mitigation
{
    let file = try ELFFile(bytes, name: context.object)
    guard let id = file.buildID else {
        throw Failure(
            "no-build-id", "the file has no build ID, so running instances of it cannot be recognised.", at: file.name,
            remedy: "Distribution packages have one (ld --build-id).")
    }
    let image = try CodeImage(file)
    guard let f = image.functions.first(where: { $0.names.contains(name) || image.name($0.index) == name }) else {
        throw Failure(
            "function-not-found", "the build has no such function.", at: name, remedy: "Stripped functions are called fn_<address>.")
    }
    let hash = hexDigits(sha256(bytes[...]))
    var manifest = Manifest(
        tool: builderVersion, buildID: id.description, newBuildID: id.description, oldSHA256: hash, newSHA256: hash, object: context.object)
    manifest.package = context.package
    manifest.oldVersion = context.oldVersion
    manifest.evidence = ["an operator's decision"]
    manifest.consistency = Consistency(.perCall, because: "one function is entered, and its callers stay as they are.")

    let callers = callers(of: f, in: image)
    var findings = judged(f, image, callers, value)
    var contents = PatchContents(manifest: manifest)
    let code = code(f, returning: value)
    contents[.text] = code
    contents.symbols = [PatchSymbol("mitigated." + image.name(f.index), .part(.text, offset: 0), isFunction: true, size: code.count)]
    contents[.unwind] = unwind(f, image, code.count)
    if !contents[.unwind].isEmpty {
        let at = contents[.unwind].count - fdeSize + 8
        contents.relocations = [PatchRelocation(.unwind, at: at, .pc32, symbol: 0, addend: 0)]
    }
    var site = 0, bridge: [UInt8] = []
    let padding = EntryPadding(image, before: [f.index])
    let room = padding.room(before: f.index)
    switch PatchSite.find(in: f.instructions, size: f.size, roomBefore: room.count, roomAfter: f.roomAfter) {
    case .at(let offset, let isBridged):
        site = offset
        bridge = isBridged ? room.suffix(Jump.length) : []
        if let why = Hooks.unwritable(image, f.start + offset, isBridged ? Jump.shortLength : Jump.length) {
            findings.append(
                Finding(why.code, image.name(f.index), why.sentence, remedy: "Stop the service until there is a fix.", verdict: .refuse))
        }
    case .tooShort, .branchesInto:
        findings.append(
            Finding(
                "function-too-short", image.name(f.index), "there is no room for a jump at its entry.",
                remedy: "Stop the service until there is a fix.", verdict: .refuse))
    }
    let old = file.read(f.start, f.size).map(Array.init) ?? []
    let siteBytes =
        file.read(f.start + site, Replacement.siteBytes).map(Array.init) ?? Array(old.dropFirst(site).prefix(Replacement.siteBytes))
    contents.replacements = [
        Replacement(
            old: f.start, oldSize: f.size, newOffset: 0, newSize: code.count, isHooked: true, siteOffset: site, bridgeBytes: bridge,
            oldSiteBytes: siteBytes, oldHash: sha256(old[...]))
    ]
    contents.manifest.functions = [
        ReplacedFunction(
            name: image.name(f.index), oldAddress: f.start.value, oldSize: f.size, newSize: code.count, isHooked: true,
            why: "returns \(value) at once")
    ]
    contents.manifest.findings = findings
    contents.manifest.verdict = findings.contains { $0.verdict == .refuse } ? .refuse : .review
    var statistics = BuildStatistics()
    statistics.oldFunctions = image.functions.count
    statistics.newFunctions = image.functions.count
    statistics.same = image.functions.count - 1
    statistics.changed = 1
    statistics.moved = 1
    let outcome: BuildResult.Outcome = contents.manifest.verdict == .refuse ? .refused : .patch(try contents.encode())
    return Mitigation(result: BuildResult(outcome: outcome, manifest: contents.manifest, statistics: statistics), callers: callers)
}

private let fdeSize = 24

/// ENDBR64 where the old function has it, the value, and back. A local function that never touches rax has no result, and its
/// callers may rely on that.
private func code(_ f: CodeFunction, returning value: Int64) -> [UInt8] {
    var code: [UInt8] = f.instructions.first?.mnemonic == Mnemonic.endbr64 ? [0xf3, 0x0f, 0x1e, 0xfa] : []
    let mayReturn =
        f.isExported || f.undecodedAt != nil || f.instructions.contains { $0.writes & Register.rax.bit != 0 || $0.flow == .call }
    if mayReturn {
        if value == 0 {
            code += [0x31, 0xc0]  // xor eax, eax
        } else if let short = Int32(exactly: value) {
            code += [0x48, 0xc7, 0xc0]  // mov rax, imm32
            code.append32(UInt32(bitPattern: short))
        } else {
            code += [0x48, 0xb8]  // mov rax, imm64
            code.append64(UInt64(bitPattern: value))
        }
    }
    return code + [0xc3]
}

/// The old function's common record and a frame that is just the return address; empty where that record says more.
private func unwind(_ f: CodeFunction, _ image: CodeImage, _ size: Int) -> [UInt8] {
    guard let frame = f.frame.map({ image.unwind.frames[$0] }) else { return [] }
    let common = image.unwind.common[frame.common]
    guard !common.personality, common.pointerEncoding == 0x1b else { return [] }
    var out = Array(image.file.bytes.storage[common.record])
    let back = UInt32(out.count + 4)
    out.append32(UInt32(fdeSize - 4))
    out.append32(back)
    out.append32(0)  // start: relocated
    out.append32(UInt32(size))
    return out + [0, 0, 0, 0, 0, 0, 0, 0]  // no augmentation data, seven times nothing
}

/// Direct calls, through the PLT and the GOT too.
private func callers(of f: CodeFunction, in image: CodeImage) -> [(name: String, use: ResultUse)] {
    var result: [(name: String, use: ResultUse)] = []
    for g in image.functions {
        for r in g.references where r.kind != .address || image.function(at: r.target) != f.index {
            let i = g.instructions[r.instruction]
            guard i.flow == .call || i.flow == .jump else { continue }
            let isIt: Bool =
                switch image.place(r.target) {
                case .function(let x, let offset): x == f.index && offset == 0
                case .plt(let key): image.exportedByKey[key] == f.index
                case .slot: image.relocationAt[r.target].flatMap(image.target).flatMap(image.function) == f.index
                case .data, .nowhere: false
                }
            guard isIt, g.index != f.index else { continue }
            result.append((image.name(g.index), i.flow == .jump ? .other : use(in: g, behind: r.instruction)))
        }
    }
    return result
}

/// What happens to rax first.
private func use(in g: CodeFunction, behind call: Int) -> ResultUse {
    let rax = Register.rax
    for i in g.instructions[(call + 1)...].prefix(24) {
        if let m = i.memory, m.base == rax || m.index == rax { return .followed }
        if i.reads & rax.bit != 0 {
            // test and cmp write no register; what only copies it may do anything with it.
            return i.writes == 0 && !i.writesMemory && i.flow == .next ? .checked : .other
        }
        if i.writes & rax.bit != 0 || i.flow == .call { return .ignored }
        if i.flow != .next { return .other }
    }
    return .other
}

private func judged(_ f: CodeFunction, _ image: CodeImage, _ callers: [(name: String, use: ResultUse)], _ value: Int64) -> [Finding] {
    let name = image.name(f.index)
    var findings = [
        Finding(
            "mitigation", name,
            "it does nothing any more: whatever depends on its work fails, and what it should have written is not written.",
            remedy: "Apply it only until the fixed package can be.", verdict: .review)
    ]
    func add(_ code: String, _ sentence: String, _ remedy: String, _ verdict: BuildVerdict) {
        findings.append(Finding(code, name, sentence, remedy: remedy, verdict: verdict))
    }
    if f.undecodedAt == nil, !f.instructions.contains(where: { $0.flow == .return || $0.flow == .jump }) {
        add(
            "never-returns", "it never returns, and its callers have no code for the case that it does.", "Choose one of its callers.",
            .refuse)
    }
    if f.isExported || image.addressTaken().contains(f.index) {
        add(
            "unseen-callers", "other objects, or calls through pointers, may call it: what they make of \(value) is not known.",
            "Look at its documentation for what it may return.", .review)
    }
    let following = Set(callers.filter { $0.use == .followed }.map(\.name)).sorted()
    if !following.isEmpty, value >= 0, value < 1 << 16 {
        add(
            "result-followed", "\(following.joined(separator: ", ")) would use \(value) as an address at once.", "Choose another function.",
            .refuse)
    }
    let unsure = Set(callers.filter { $0.use == .other || $0.use == .followed && !(value >= 0 && value < 1 << 16) }.map(\.name)).sorted()
    if !unsure.isEmpty {
        add(
            "result-used", "\(unsure.prefix(8).joined(separator: ", ")) \(unsure.count == 1 ? "uses" : "use") the result unchecked.",
            "Look at what they do with \(value).", .review)
    }
    if callers.isEmpty, !f.isExported, !image.addressTaken().contains(f.index) {
        add(
            "never-called", "nothing in the object calls it: it may have been inlined where it matters.", "Choose its callers instead.",
            .refuse)
    }
    return findings
}
