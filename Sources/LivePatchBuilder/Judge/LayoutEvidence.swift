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
        if isReconstructed { note = "old sources reconstructed" }
    }

    /// As the manifest has it: `source: agrees`.
    public var label: String { "\(name): \(answer.rawValue)" + (note.isEmpty ? "" : " (\(note))") }
}

extension LayoutEvidence {
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
