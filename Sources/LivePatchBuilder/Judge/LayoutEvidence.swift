// What is known, besides two stripped files, about whether live data keeps its layout and its meaning: the answers of each
// kind of evidence.

import ELF
import LivePatch

/// What one kind of evidence says.
public enum LayoutAnswer: String, Sendable, Codable {
    /// Live data keeps its layout.
    case agrees
    /// Something that shapes data differs.
    case differs
    /// It was looked at, and cannot be told.
    case unknown
    /// There is none.
    case absent
}

public struct LayoutEvidence: Sendable {
    /// `source` or `dwarf`.
    public var name: String
    public var answer: LayoutAnswer
    /// What differs or is not understood; each is for a person to decide.
    public var findings: [Finding]
    /// Why there is none, in a sentence; empty otherwise.
    public var reason: String
    /// What a reader of the answer should know.
    public var note = ""
    /// Functions that differ, as text.
    public var changes: [SourceChange] = []
    /// Findings about the package's own tests.
    public var tests: [Finding] = []
    /// Functions that are declared otherwise, with the findings about them.
    public var redeclared: [SourceRedeclaration] = []

    public init(_ name: String, _ answer: LayoutAnswer, findings: [Finding] = []) {
        self.name = name
        self.answer = answer
        self.findings = findings
        reason = ""
    }

    public init(absent name: String, because reason: String) {
        self.init(name, .absent)
        self.reason = reason
    }

    public init(absent name: String, because failure: Failure) {
        self.init(absent: name, because: "\(failure.place): \(failure.sentence) \(failure.remedy) [\(failure.code)]")
    }

    /// `isReconstructed`: the old sources were made from the new ones, by taking patches off.
    public init(_ source: SourceEvidence, isReconstructed: Bool = false) {
        self.init("source", source.answer, findings: source.findings)
        changes = source.changes
        tests = source.tests
        redeclared = source.redeclared
        if isReconstructed { note = "old sources reconstructed" }
    }

    /// As the manifest has it: `source: agrees`.
    public var label: String { "\(name): \(answer.rawValue)" + (note.isEmpty ? "" : " (\(note))") }
}

extension LayoutEvidence {
    /// For one object: code of the package's tests counts where the object may be one.
    func about(_ object: String) -> LayoutEvidence {
        let path = object.lowercased()
        guard !tests.isEmpty, ["test", "regress", "fuzz", "example", "sample", "demo", "bench"].contains(where: path.contains) else {
            return self
        }
        var result = self
        result.findings += tests
        if answer != .absent { result.answer = .differs }
        return result
    }

    /// What the symbols of the old build settle: a function of one source file whose address nobody can have is called by those only
    /// who were compiled with it, so that it may be declared otherwise. `taken`: old functions whose address somebody may have.
    func settled(by old: CodeImage, taken: Set<Int>) -> LayoutEvidence {
        guard answer == .differs, !redeclared.isEmpty, old.functions.allSatisfy({ $0.undecodedAt == nil }) else { return self }
        var result = self
        for r in redeclared {
            // With the parts and clones that compilers make of it.
            let key = r.file + ":" + r.name
            let bodies = old.functions.filter { $0.keys.contains { $0 == key || $0.hasPrefix(key + ".") } }
            guard !bodies.isEmpty, bodies.allSatisfy({ !taken.contains($0.index) && !$0.isExported }) else { continue }
            result.findings.removeAll { $0 == r.finding }
        }
        guard result.findings.count < findings.count else { return self }
        if result.findings.isEmpty { result.answer = .agrees }
        result.note += (note.isEmpty ? "" : "; ") + "no pointers to redeclared functions"
        return result
    }

    /// The findings of two linked files together with what else is known. Two files alone never suffice: without evidence that
    /// live data keeps its layout a person must decide.
    static func judge(_ binary: [Finding], _ evidence: [LayoutEvidence], of object: String) -> [Finding] {
        var result = binary
        let more = evidence.flatMap(\.findings)
        if evidence.contains(where: { $0.answer == .agrees }) {
            // Asked whether a field is new, the types answer that none is.
            result.removeAll { $0.code == "new-displacement" }
        } else if more.isEmpty, !result.contains(where: { $0.verdict == .refuse }) {
            let reasons = evidence.filter { !$0.reason.isEmpty }.map { "No answer from \($0.name): \($0.reason)" }
            result.append(
                Finding(
                    "layout-unproved", object.split(separator: "/").last.map(String.init) ?? object,
                    (["nothing besides the two files says that live data keeps its layout."] + reasons).joined(separator: " "),
                    remedy: "Settled by the sources of both versions, or by debug files of both builds (--debug-dir). Otherwise decide: "
                        + "does the update change a structure, an enumeration or an initial value?",
                    verdict: .review))
        }
        return result + more
    }
}
