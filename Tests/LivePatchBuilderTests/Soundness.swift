// What the builder must never do: pass a patch under which a process answers otherwise than the fixed build would.

import LivePatch
import Testing

/// One call of `long name(long, long)`.
struct Call: Sendable, CustomStringConvertible {
    let name: String, a: Int, b: Int
    init(_ name: String, _ a: Int = 0, _ b: Int = 0) { (self.name, self.a, self.b) = (name, a, b) }
    var description: String { "\(name)(\(a), \(b))" }
}

/// Judges the pair. Unless it is refused, or left for review, the old build must answer like the fixed one: with the
/// patch, or as it is where nothing was to do. Calls in `before` run first, in the unpatched process.
@discardableResult
func expectSound(
    _ pair: Pair, before: [Call] = [], after: [Call], answers: Set<Judgement.Answer>? = nil, comment: Comment? = nil,
    sourceLocation: SourceLocation = #_sourceLocation
) throws -> Judgement {
    let j = try pair.judge()
    if let answers { #expect(answers.contains(j.answer), "\(j)", sourceLocation: sourceLocation) }
    guard j.answer == .pass || j.answer == .nothingToDo else { return j }
    let patched = try Host(pair.workshop, pair.old.path), fixed = try Host(pair.workshop, pair.new.path)
    for c in before {
        let expected = try fixed.call(c.name, c.a, c.b)
        #expect(try patched.call(c.name, c.a, c.b) == expected, "before the patch: \(c)", sourceLocation: sourceLocation)
    }
    if let patch = j.patch { try patched.apply(patch) }
    for c in after {
        let expected = try fixed.call(c.name, c.a, c.b)
        do {
            let got = try patched.call(c.name, c.a, c.b)
            #expect(got == expected, "\(c) in the patched process; \(comment?.rawValue ?? "")\n\(j)", sourceLocation: sourceLocation)
        } catch {
            Issue.record("\(c) killed the patched process; \(comment?.rawValue ?? "")\n\(j)", sourceLocation: sourceLocation)
            return j
        }
    }
    return j
}
