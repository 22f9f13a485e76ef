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

    public init(_ source: SourceEvidence) { self.init("source", source.answer, findings: source.findings) }

    /// As the manifest has it: `source: agrees`.
    public var label: String { "\(name): \(answer.rawValue)" }
}
