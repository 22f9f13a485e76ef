// Derives a live patch from two builds of one object. The recipe:
// read both -> match functions -> compare -> collect what moves -> prove where it refers to -> judge -> write.

import ELF
import LivePatch

/// What a builder was told about its two inputs besides their bytes.
public struct BuildContext: Sendable {
    /// Path of the object in its package, or its file name.
    public var object: String
    public var package: String?
    public var oldVersion: String?
    public var newVersion: String?
    /// CVE ids named in the changelog between the versions.
    public var cves: [String]
    /// The changelog reaches back to the old version; nil without a changelog.
    public var cvesAreComplete: Bool?
    /// What is known about live data besides what the two files say.
    public var evidence: [LayoutEvidence] = []
    /// The result says, function by function, what changed.
    public var explains = false
    /// Separate debug files of the two builds; without one the object itself is asked.
    public var oldDebug: [UInt8]?
    public var newDebug: [UInt8]?

    public init(
        object: String, package: String? = nil, oldVersion: String? = nil, newVersion: String? = nil, cves: [String] = [],
        cvesAreComplete: Bool? = nil
    ) {
        self.object = object
        self.package = package
        self.oldVersion = oldVersion
        self.newVersion = newVersion
        self.cves = cves
        self.cvesAreComplete = cvesAreComplete
    }
}

public struct BuildStatistics: Sendable, Equatable, Codable {
    public var oldFunctions = 0
    public var newFunctions = 0
    public var same = 0
    public var linesOnly = 0
    public var changed = 0
    public var added = 0
    public var moved = 0
}

public struct BuildResult: Sendable {
    public enum Outcome: Sendable {
        /// No function and no data differs in a way that running processes could notice.
        case nothingToDo
        /// The patch file's bytes. The manifest says `pass` or `review`.
        case patch([UInt8])
        /// No patch: the manifest's findings say why.
        case refused
    }
    public var outcome: Outcome
    public var manifest: Manifest
    public var statistics: BuildStatistics
    /// Functions of the patch, in its order; only where the context asked for them.
    public var explanation: [FunctionChange] = []
}

/// Name and version that manifests carry.
public let builderVersion = "fother 0.1.0"

/// Compares two ELF files and builds the patch that makes the first behave like the second.
/// Throws for inputs that cannot be compared at all; what can be compared and not proved is a refusal in the result.
public func build(old oldBytes: [UInt8], new newBytes: [UInt8], _ context: BuildContext) throws(Failure) -> BuildResult {
    let oldFile = try ELFFile(oldBytes, name: context.object + " (old)"), newFile = try ELFFile(newBytes, name: context.object + " (new)")
    guard let oldID = oldFile.buildID, let newID = newFile.buildID else {
        throw Failure(
            "no-build-id", "the file has no build ID, so running instances of it cannot be recognised.",
            at: oldFile.buildID == nil ? oldFile.name : newFile.name, remedy: "Distribution packages have one (ld --build-id).")
    }
    var manifest = Manifest(
        tool: builderVersion, buildID: oldID.description, newBuildID: newID.description, oldSHA256: hexDigits(sha256(oldBytes[...])),
        newSHA256: hexDigits(sha256(newBytes[...])), object: context.object)
    manifest.package = context.package
    manifest.oldVersion = context.oldVersion
    manifest.newVersion = context.newVersion
    manifest.cves = context.cves.sorted()
    manifest.cvesAreComplete = context.cvesAreComplete
    manifest.evidence = ["binary"]

    let comparison = Comparison(try CodeImage(oldFile), try CodeImage(newFile))
    let debug = (
        try debugFile(context.oldDebug, of: oldFile), try debugFile(context.newDebug, of: newFile)
    )
    var (result, _) = try derive(comparison, manifest, context.evidence, debug)
    if context.explains {
        let moved = MovedCode(comparison)
        result.explanation = moved.functions.map {
            FunctionChange(comparison, $0, comparison.match.oldOf[$0], why: moved.reasons[$0] ?? "")
        }
    }
    return result
}

/// What holds the debug information of `file`: its separate debug file, or itself. Failure: `debug-mismatch`.
private func debugFile(_ bytes: [UInt8]?, of file: ELFFile) throws(Failure) -> ELFFile {
    guard let bytes else { return file }
    let debug = try ELFFile(bytes, name: file.name + " (debug file)")
    guard debug.buildID == file.buildID else {
        throw Failure(
            "debug-mismatch", "the debug file belongs to another build.", at: debug.name, remedy: "Give the one with the same build ID.")
    }
    return debug
}

/// Which functions of a build to move without changing them.
public enum FunctionChoice: Sendable {
    /// By symbol, or `fn_<address>` as other commands print it.
    case named([String])
    /// Every function that can be moved; the others are left out.
    case all(except: Set<String>)
}

/// A patch that moves functions of one build and changes nothing: what it does to a process is what moving costs, and any
/// difference in behaviour is a defect. Failure: `function-not-found`.
public func buildItself(_ bytes: [UInt8], moving choice: FunctionChoice, _ context: BuildContext) throws(Failure) -> BuildResult {
    let file = try ELFFile(bytes, name: context.object)
    guard let id = file.buildID else {
        throw Failure(
            "no-build-id", "the file has no build ID, so running instances of it cannot be recognised.", at: file.name,
            remedy: "Distribution packages have one (ld --build-id).")
    }
    let hash = hexDigits(sha256(bytes[...]))
    var manifest = Manifest(
        tool: builderVersion, buildID: id.description, newBuildID: id.description, oldSHA256: hash, newSHA256: hash, object: context.object)
    manifest.package = context.package
    manifest.evidence = ["binary", "same file: agrees"]
    let image = try CodeImage(file)
    switch choice {
    case .named(let names):
        var chosen: Set<Int> = []
        for name in names {
            guard let f = image.functions.first(where: { $0.names.contains(name) || image.name($0.index) == name }) else {
                throw Failure(
                    "function-not-found", "the build has no such function.", at: name, remedy: "Stripped functions are called fn_<address>."
                )
            }
            chosen.insert(f.index)
        }
        return try derive(Comparison(itself: image, moving: chosen), manifest).result
    case .all(let left):
        var chosen = Set(image.functions.filter { $0.frame != nil && !left.contains(image.name($0.index)) }.map(\.index))
        let comparison = Comparison(itself: image, moving: chosen)
        while true {
            let (result, refused) = try derive(comparison.moving(chosen), manifest)
            let fewer = chosen.subtracting(refused)
            if fewer.count == chosen.count || fewer.isEmpty { return result }
            chosen = fewer
        }
    }
}

/// From a comparison to a patch or a refusal; with the functions (new indices) that refuse.
/// `evidence` and `debug` (what holds debug information): nil where one file is compared with itself.
private func derive(_ comparison: Comparison, _ manifest: Manifest, _ evidence: [LayoutEvidence]? = nil, _ debug: (ELFFile, ELFFile)? = nil)
    throws(Failure) -> (result: BuildResult, refused: Set<Int>)
{
    var manifest = manifest
    let moved = MovedCode(comparison)
    let oldTaken = comparison.old.addressTaken()
    let evidence = evidence?.map { $0.about(manifest.object).settled(by: comparison.old, taken: oldTaken) }
    var resolver = Resolver(
        comparison, moved, oldTaken: oldTaken, declarationsAgree: (evidence ?? []).contains { $0.name == "source" && $0.answer == .agrees })
    var resolved: [Int: [Resolved]] = [:]
    for n in moved.functions {
        resolved[n] = resolver.resolve(n)
        if let at = comparison.new.functions[n].undecodedAt {
            resolver.refuse("undecodable-code", n, "the bytes at +\(hex(at)) are no instruction.", "Install the fixed package and restart.")
        }
    }
    let hooks = Hooks(comparison, moved, oldTaken: oldTaken)
    let writer = PatchWriter(comparison, moved, hooks, resolved, oldTaken: oldTaken, manifest: manifest)

    var findings = resolver.findings + hooks.findings + writer.findings
    findings += LayoutSignals.findings(comparison, moved)
    findings += DataComparison.findings(comparison, fresh: resolver.freshAddresses)
    findings += ReadOnlyComparison.findings(comparison, moved)
    let statistics = statistics(comparison, moved)
    if moved.functions.isEmpty, findings.isEmpty {
        manifest.verdict = .pass
        return (BuildResult(outcome: .nothingToDo, manifest: manifest, statistics: statistics), [])
    }
    if let evidence, let debug {
        // Who looked for the debug information in vain has said why.
        let all =
            evidence.contains { $0.name == "dwarf" }
            ? evidence : evidence + [TypeComparison.evidence(debug.0, debug.1, patched: ranges(comparison, moved))]
        findings = LayoutEvidence.judge(findings, all, of: manifest.object)
        manifest.evidence += all.map(\.label)
    }
    let refused = resolver.refused.union(hooks.refused).union(writer.refused)

    var contents = writer.contents
    contents.manifest.evidence = manifest.evidence
    contents.manifest.needsUnwinder = resolver.needsUnwinder || writer.hasHandlers ? true : nil
    contents.manifest.findings = judged(findings)
    contents.manifest.verdict = findings.contains { $0.verdict == .refuse } ? .refuse : findings.isEmpty ? .pass : .review
    guard contents.manifest.verdict != .refuse, !moved.functions.isEmpty else {
        contents.manifest.verdict = .refuse
        return (BuildResult(outcome: .refused, manifest: contents.manifest, statistics: statistics), refused)
    }
    return (BuildResult(outcome: .patch(try contents.encode()), manifest: contents.manifest, statistics: statistics), refused)
}

/// Where the moved functions stand in each build.
private func ranges(_ c: Comparison, _ moved: MovedCode) -> (old: [Range<LinkAddress>], new: [Range<LinkAddress>]) {
    func range(_ f: CodeFunction) -> Range<LinkAddress> { f.start..<f.end }
    return (
        moved.functions.compactMap { c.match.oldOf[$0] }.map { range(c.old.functions[$0]) },
        moved.functions.map { range(c.new.functions[$0]) }
    )
}

/// What refuses first, then by code and function; each finding once.
private func judged(_ findings: [Finding]) -> [Finding] {
    Set(findings).sorted {
        ($0.verdict == .refuse ? 0 : 1, $0.code, $0.function, $0.sentence) < (
            $1.verdict == .refuse ? 0 : 1, $1.code, $1.function, $1.sentence
        )
    }
}

private func statistics(_ c: Comparison, _ moved: MovedCode) -> BuildStatistics {
    var s = BuildStatistics()
    s.oldFunctions = c.old.functions.count
    s.newFunctions = c.new.functions.count
    for r in c.relation {
        switch r {
        case .same: s.same += 1
        case .linesOnly: s.linesOnly += 1
        case .changed: s.changed += 1
        case .added: s.added += 1
        }
    }
    s.moved = moved.functions.count
    return s
}
