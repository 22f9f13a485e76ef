// The shape of every failure in Fother: a code for programs, a sentence and a place for people, and what to do next.

/// A failure that a person can act on and a program can tell apart. Nobody parses `sentence`.
public struct Failure: Error, Sendable, Equatable, CustomStringConvertible {
    /// Stable, kebab-case, documented in `docs/codes.md`: `build-id-mismatch`.
    public var code: String
    /// One sentence that says what is wrong, without the place.
    public var sentence: String
    /// Where: a file and offset, a process, a function. Empty when there is no place.
    public var place: String
    /// What to do next. Empty only when nothing can be done.
    public var remedy: String

    public init(_ code: String, _ sentence: String, at place: String = "", remedy: String = "") {
        self.code = code
        self.sentence = sentence
        self.place = place
        self.remedy = remedy
    }

    public var description: String {
        (place.isEmpty ? "" : place + ": ") + sentence + (remedy.isEmpty ? "" : " " + remedy)
    }
}
