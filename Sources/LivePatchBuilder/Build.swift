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

    public init(object: String, package: String? = nil, oldVersion: String? = nil, newVersion: String? = nil, cves: [String] = []) {
        self.object = object
        self.package = package
        self.oldVersion = oldVersion
        self.newVersion = newVersion
        self.cves = cves
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
    manifest.evidence = ["binary"]

    let comparison = Comparison(try CodeImage(oldFile), try CodeImage(newFile))
    let moved = MovedCode(comparison)
    let oldTaken = comparison.old.addressTaken()
    var resolver = Resolver(comparison, moved, oldTaken: oldTaken)
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
    let statistics = statistics(comparison, moved)
    if moved.functions.isEmpty, findings.isEmpty {
        manifest.verdict = .pass
        return BuildResult(outcome: .nothingToDo, manifest: manifest, statistics: statistics)
    }

    var contents = writer.contents
    contents.manifest.findings = judged(findings)
    contents.manifest.verdict = findings.contains { $0.verdict == .refuse } ? .refuse : findings.isEmpty ? .pass : .review
    guard contents.manifest.verdict != .refuse, !moved.functions.isEmpty else {
        contents.manifest.verdict = .refuse
        return BuildResult(outcome: .refused, manifest: contents.manifest, statistics: statistics)
    }
    return BuildResult(outcome: .patch(try contents.encode()), manifest: contents.manifest, statistics: statistics)
}

/// What refuses first, then by code and function; each finding once.
private func judged(_ findings: [Finding]) -> [Finding] {
    Set(findings).sorted {
        ($0.verdict == .refuse ? 0 : 1, $0.code, $0.function, $0.sentence) < ($1.verdict == .refuse ? 0 : 1, $1.code, $1.function, $1.sentence)
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
