// Read-only data that changed where no function shows it: constants that other objects
// read. Functions that read changed data, or catch other exceptions, move, and bring the new data along.

import ELF
import LivePatch

struct ReadOnlyComparison {
    static func findings(_ c: Comparison, _ moved: MovedCode) -> [Finding] {
        if c.isItself { return [] }
        return exportedObjects(c)
    }

    private static func finding(_ place: String, _ sentence: String) -> Finding {
        Finding(
            "read-only-data-changed", place, sentence, remedy: "A build with symbols would tell where objects end; or restart.",
            verdict: .refuse)
    }

    /// Other objects read exported constants directly.
    private static func exportedObjects(_ c: Comparison) -> [Finding] {
        var result: [Finding] = []
        for s in c.old.file.dynamicSymbols where s.isDefined && s.kind == .object && s.section != Symbol.absolute {
            guard let t = c.new.file.dynamicSymbols.first(where: { $0.isDefined && $0.key == s.key && $0.kind == .object }),
                let section = c.new.file.section(at: t.value), !section.isWritable
            else { continue }
            if s.size != t.size || c.old.file.read(s.value, s.size) != c.new.file.read(t.value, t.size) {
                result.append(finding(s.name, "the exported constant \(s.name) differs, and other objects read it where it is."))
            }
        }
        return result
    }
}
