// Read-only data that changed where no function shows it: constants that other objects read, and what is caught where.
// Functions that read changed data move, and bring the new data along.

import ELF
import LivePatch

struct ReadOnlyComparison {
    static func findings(_ c: Comparison, _ moved: MovedCode) -> [Finding] {
        if c.isItself { return [] }
        return exportedObjects(c) + exceptionTables(c, moved)
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

    /// Which exceptions are caught where is data, not code.
    private static func exceptionTables(_ c: Comparison, _ moved: MovedCode) -> [Finding] {
        let name = ".gcc_except_table"
        let a = c.old.file.section(name).map { c.old.file.contents($0) } ?? [],
            b = c.new.file.section(name).map { c.new.file.contents($0) } ?? []
        guard a != b else { return [] }
        return [
            Finding(
                "exception-data", name, "the tables of what is caught where differ.", remedy: "Install the fixed package and restart.",
                verdict: .refuse)
        ]
    }
}
