// What two versions of a source package say about live data: does anything outside function bodies differ? Types, variables,
// macros and initial values stand outside; where none of them differs, data that exists keeps its layout and its meaning.

import ELF
import LivePatch

/// What the sources of both versions answer.
public struct SourceEvidence: Sendable {
    /// Nothing outside function bodies differs; something does; or that cannot be told.
    public var answer: LayoutAnswer
    /// What differs, or is not understood: each names file and line.
    public var findings: [Finding] = []
    /// `file:function` of functions whose body differs, and of those only one version has; sorted.
    public var changed: [String] = []
    public var added: [String] = []
    public var removed: [String] = []
    /// The same functions, with their lines.
    public var changes: [SourceChange] = []
    /// The same of the package's own tests, which go into no object but those that are tests.
    public var tests: [Finding] = []
    /// Functions of files in C that are declared otherwise, each with its finding.
    public var redeclared: [SourceRedeclaration] = []

    public init(_ answer: LayoutAnswer) { self.answer = answer }
}

/// A function that is declared otherwise than before: it matters where a pointer to it is kept.
public struct SourceRedeclaration: Sendable {
    /// The last part of the file's path, as symbol tables have it.
    public var file: String
    public var name: String
    public var finding: Finding
}

public struct SourceComparison {
    /// More findings than this of one package are counted, not listed.
    static let findingsMax = 200
    /// Functions whose lines are kept.
    static let changesMax = 2_000
    /// Pieces outside bodies beyond this many, in a part of a file that differs, are not told apart.
    static let piecesMax = 20_000

    private let old: SourceTree
    private let new: SourceTree
    private var macros = SourceMacros()
    /// Names of files that code outside tests includes.
    private var included: Set<String> = []
    private var result = SourceEvidence(.agrees)
    private var left = 0

    /// Compares two unpacked source packages. Failures: those of reading files.
    public static func compare(old: String, new: String) throws(Failure) -> SourceEvidence {
        var c = SourceComparison(old: try SourceTree(root: old), new: try SourceTree(root: new))
        try c.run()
        return c.result
    }

    private init(old: SourceTree, new: SourceTree) {
        self.old = old
        self.new = new
    }

    private mutating func run() throws(Failure) {
        let differing = try differingFiles()
        let relevant = differing.filter { SourceFileKind(path: $0) != .notCode || Self.looksLikeCode($0) }
        if !relevant.isEmpty { try readMacros() }
        for path in differing {
            var kind = SourceFileKind(path: path)
            // A test's header that the product includes is no test's.
            if kind == .notCode, Self.looksLikeCode(path), included.contains(Self.name(path)) { kind = .code(isCPlusPlus: true) }
            switch kind {
            case .notCode: if Self.looksLikeCode(path) { try compareTest(path) }
            case .build:
                unknown(
                    "source-build-changed", path, 1, "how the package is built changed.", "Whether that changes types or initial values.")
            case .other:
                unknown(
                    "source-unclear", path, 1, "the file changed, and may be turned into code.",
                    "Whether types or initial values come from it.")
            case .code(let isCPlusPlus): try compare(path, isCPlusPlus)
            }
        }
        try packaging(differing)
        for (word, place) in macros.replacedWords.sorted(by: { $0.key < $1.key }) where !relevant.isEmpty {
            unknown(
                "source-unclear", place, nil, "a macro replaces the word \(word), so the text does not say what it means.",
                "What the macro does to types.")
        }
        if left > 0 {
            result.findings.append(
                Finding(
                    "source-unclear", "sources", "\(left) more differences outside functions.",
                    remedy: "Read the difference of the sources.", verdict: .review))
        }
        result.changed.sort()
        result.added.sort()
        result.removed.sort()
    }

    // MARK: Files

    private static func name(_ path: String) -> String { path.split(separator: "/").last.map(String.init) ?? path }
    private static func looksLikeCode(_ path: String) -> Bool {
        if case .code = SourceFileKind(path: name(path)) { return true }
        return false
    }

    private func differingFiles() throws(Failure) -> [String] {
        var result: Set<String> = []
        let before = Set(old.files), after = Set(new.files)
        result.formUnion(before.symmetricDifference(after))
        for path in before.intersection(after) where try old.read(path) != new.read(path) { result.insert(path) }
        for path in Set(old.links.keys).union(new.links.keys) where old.links[path] != new.links[path] { result.insert(path) }
        return result.sorted()
    }

    /// The macros of both trees, and what code includes.
    private mutating func readMacros() throws(Failure) {
        for tree in [old, new] {
            for path in tree.files {
                guard case .code = SourceFileKind(path: path) else { continue }
                let bytes = try tree.read(path)
                guard bytes.count <= CTokens.bytesMax else { continue }
                let lines = CTokens(Self.directives(bytes))
                macros.read(lines, of: path)
                for t in lines.tokens where t.kind == .directive && t.text.hasPrefix("include") {
                    // `"a/b.h"`, `<a/b.h>`: whatever the quotes, the last part is the file's name.
                    let text = t.rest.map(\.text).joined()
                    included.insert(Self.name(text.filter { !"\"<>".contains($0) }))
                }
                guard macros.names.count <= SourceMacros.definitionsMax else {
                    throw Failure("limit-exceeded", "more than \(SourceMacros.definitionsMax) macros.", at: tree.root)
                }
            }
        }
        macros.close()
    }

    /// Only the lines that are directives, with what continues them: all that is wanted of files that do not differ. A line
    /// inside a comment may come along; it can only make the answer more careful.
    private static func directives(_ bytes: [UInt8]) -> [UInt8] {
        var result: [UInt8] = []
        let span = bytes.span
        var at = 0
        while at < span.count {
            var i = at
            while i < span.count, span[i] == 32 || span[i] == 9 { i += 1 }
            let isDirective = i < span.count && span[i] == UInt8(ascii: "#")
            var end = i
            while end < span.count {
                if span[end] == UInt8(ascii: "\n") {
                    var back = end
                    while back > i, span[back - 1] == 13 || span[back - 1] == 32 || span[back - 1] == 9 { back -= 1 }
                    if !(isDirective && back > i && span[back - 1] == UInt8(ascii: "\\")) { break }
                }
                end += 1
            }
            if isDirective {
                for k in i..<end { result.append(span[k]) }
                // A comment that goes on beyond the line must not swallow the next directive.
                if isOpen(bytes[i..<end]) { result += [UInt8(ascii: "*"), UInt8(ascii: "/")] }
                result.append(UInt8(ascii: "\n"))
            }
            at = end + 1
        }
        return result
    }

    private static func isOpen(_ line: ArraySlice<UInt8>) -> Bool {
        var at = line.startIndex, isOpen = false
        while at + 1 < line.endIndex {
            if !isOpen, line[at] == UInt8(ascii: "/"), line[at + 1] == UInt8(ascii: "*") {
                isOpen = true
                at += 2
            } else if isOpen, line[at] == UInt8(ascii: "*"), line[at + 1] == UInt8(ascii: "/") {
                isOpen = false
                at += 2
            } else {
                at += 1
            }
        }
        return isOpen
    }

    /// Patches lie in the tree unless the package applies them in its rules; other build dependencies may be other headers.
    private mutating func packaging(_ differing: [String]) throws(Failure) {
        func format(_ tree: SourceTree) throws(Failure) -> String {
            guard tree.files.contains("debian/source/format") else { return "1.0" }
            return String(decoding: try tree.read("debian/source/format"), as: UTF8.self).filter { !$0.isWhitespace }
        }
        let formats = (try format(old), try format(new))
        if differing.contains(where: { $0.hasPrefix("debian/patches/") }), formats.0 == "1.0" || formats.1 == "1.0" {
            unknown(
                "source-build-changed", "debian/patches", nil, "the package applies its patches while it is built.",
                "What the patches do to types.")
        }
        if formats.0 != formats.1 {
            unknown(
                "source-build-changed", "debian/source/format", nil, "the format of the source package changed.",
                "Whether the same patches are applied.")
        }
        guard differing.contains("debian/control"), old.files.contains("debian/control"), new.files.contains("debian/control") else {
            return
        }
        func dependencies(_ tree: SourceTree) throws(Failure) -> String {
            var result = "", isKept = false
            for line in String(decoding: try tree.read("debian/control"), as: UTF8.self).split(separator: "\n") {
                if line.first != " ", line.first != "\t" { isKept = line.lowercased().hasPrefix("build-") }
                if isKept { result += line.filter { !$0.isWhitespace } }
            }
            return result
        }
        if try dependencies(old) != dependencies(new) {
            unknown(
                "source-build-changed", "debian/control", nil, "what the package is built with changed.",
                "Whether a header of another package changes types.")
        }
    }

    // MARK: One file

    /// Code of the package's tests says nothing about other objects.
    private mutating func compareTest(_ path: String) throws(Failure) {
        let product = result, leftOver = left
        result = SourceEvidence(.agrees)
        try compare(path, true)
        let tests = result.findings
        (result, left) = (product, leftOver)
        result.tests += tests.prefix(max(0, Self.findingsMax - result.tests.count))
    }

    private mutating func compare(_ path: String, _ isCPlusPlus: Bool) throws(Failure) {
        func outline(_ tree: SourceTree) throws(Failure) -> SourceOutline? {
            guard tree.files.contains(path) else { return nil }
            let bytes = try tree.read(path)
            guard bytes.count <= CTokens.bytesMax else { return nil }
            return SourceOutline(CTokens(bytes), macros: macros, isCPlusPlus: isCPlusPlus)
        }
        if new.links[path] != nil || old.links[path] != nil {
            return unknown("source-unclear", path, nil, "the file is a link to another place than before.", "What is read through it.")
        }
        let a = try outline(old), b = try outline(new)
        for (outline, version) in [(a, "old"), (b, "new")] {
            guard let (why, line) = outline?.unreadable else { continue }
            return unknown(
                "source-unclear", path, line, "the file changed and its \(version) version cannot be read: \(why).",
                "Whether anything outside functions differs.")
        }
        guard a != nil || b != nil else {
            return unknown("source-unclear", path, nil, "the file is too large to be read.", "What changed in it.")
        }
        pieces(path, a?.items ?? [], b?.items ?? [], Set((a?.items ?? []).filter { $0.kind == .function }.map(\.name)))
        try bodies(path, a?.functions ?? [], b?.functions ?? [])
    }

    private struct Piece: Hashable {
        var kind: String
        var text: String
        init(_ item: SourceOutline.Item) {
            kind = item.kind.rawValue + (item.isInType ? "+" : "")
            text = item.text
        }
    }

    private mutating func pieces(_ path: String, _ a: [SourceOutline.Item], _ b: [SourceOutline.Item], _ known: Set<String>) {
        let x = a.map(Piece.init), y = b.map(Piece.init)
        var head = 0
        while head < min(x.count, y.count), x[head] == y[head] { head += 1 }
        var tail = 0
        while tail < min(x.count, y.count) - head, x[x.count - 1 - tail] == y[y.count - 1 - tail] { tail += 1 }
        let before = Array(a[head..<(a.count - tail)]), after = Array(b[head..<(b.count - tail)])
        guard before.count <= Self.piecesMax, after.count <= Self.piecesMax else {
            return unknown("source-unclear", path, after.first?.line, "too much differs outside functions.", "What it is.")
        }
        var gone: [SourceOutline.Item] = [], come: [SourceOutline.Item] = []
        for change in after.map(Piece.init).difference(from: before.map(Piece.init)) {
            switch change {
            case .remove(let i, _, _): gone.append(before[i])
            case .insert(let i, _, _): come.append(after[i])
            }
        }
        // A function that moved inside its file, and one that is new or gone, changes no data. One that is called otherwise may
        // be held by a pointer.
        func isFunction(_ i: SourceOutline.Item) -> Bool { (i.kind == .function || i.kind == .prototype) && !i.isInType && !i.name.isEmpty }
        let goneFunctions = gone.filter(isFunction), comeFunctions = come.filter(isFunction)
        func signature(_ i: SourceOutline.Item) -> String {
            i.text.split(separator: " ").filter { !["static", "inline", "extern", ";"].contains($0) }.joined(separator: " ")
        }
        var told: Set<String> = []
        for i in comeFunctions {
            let same = goneFunctions.filter { $0.name == i.name }
            guard !same.isEmpty, !same.contains(where: { signature($0) == signature(i) }), told.insert(i.name).inserted else { continue }
            differs(
                "source-signature-changed", path, i, "\(i.name) is declared otherwise than before.",
                "Whether a pointer to it is kept in data, and who calls it through that.")
            if path.hasSuffix(".c"), let finding = result.findings.last, finding.code == "source-signature-changed" {
                result.redeclared.append(SourceRedeclaration(file: Self.name(path), name: i.name, finding: finding))
            }
        }
        let comeOthers = come.filter { !isFunction($0) }
        for i in gone where !isFunction(i) {
            // What changed is told where it stands now.
            guard
                !comeOthers.contains(where: { (o: SourceOutline.Item) in
                    o.kind == i.kind && (o.name == i.name && !i.name.isEmpty || o.line - i.line >= -3 && o.line - i.line <= 3)
                })
            else { continue }
            tell(path, i, isGone: true)
        }
        for i in comeOthers { tell(path, i, isGone: false) }
    }

    private mutating func tell(_ path: String, _ i: SourceOutline.Item, isGone: Bool) {
        let what = i.text.count > 60 ? i.text.prefix(57) + "…" : i.text[...]
        let verb = isGone ? "is gone" : "is new or changed"
        switch i.kind {
        case .type:
            differs(
                "source-type-changed", path, i, "in a type, `\(what)` \(verb).",
                "Whether objects of this type exist in running processes and new code uses them.")
        case .enumeration:
            differs(
                "source-enum-changed", path, i, "in an enumeration, `\(what)` \(verb).",
                "Whether stored values, or array sizes, mean something else now.")
        case .initialiser:
            differs(
                "source-initialiser-changed", path, i, "in initial values, `\(what)` \(verb).", "Whether live data must have the new value."
            )
        case .macro:
            differs(
                "source-macro-changed", path, i, "the macro \(i.name) \(verb).",
                "Whether it reaches a type, a size, or a value that is stored.")
        case .local:
            differs(
                "source-local-changed", path, i, "in \(i.name), what outlives a call \(verb).",
                "Whether it is state that running processes have already.")
        case .include:
            differs("source-include-changed", path, i, "`\(what)` \(verb).", "Whether it brings other types or macros.")
        case .condition:
            differs(
                "source-condition-changed", path, i, "the condition `\(what)` \(verb), around more than statements.", "What it switches.")
        case .declaration, .directive, .function, .prototype:
            differs("source-declaration-changed", path, i, "`\(what)` \(verb).", "Whether it is data, and data that exists.")
        case .unclear:
            result.answer = result.answer == .differs ? .differs : .unknown
            add(
                "source-unclear", path, i.line, "what stands at `\(what)` is not certainly a function, and \(verb).",
                "Whether it is more than statements.")
        }
    }

    private mutating func bodies(_ path: String, _ a: [SourceOutline.Function], _ b: [SourceOutline.Function]) throws(Failure) {
        func lines(_ tree: SourceTree) throws(Failure) -> [String] {
            guard tree.files.contains(path) else { return [] }
            return String(decoding: try tree.read(path), as: UTF8.self).split(separator: "\n", omittingEmptySubsequences: false).map(
                String.init)
        }
        let oldLines = try lines(old), newLines = try lines(new)
        func text(_ all: [String], _ functions: [SourceOutline.Function]) -> [String] {
            functions.flatMap { f in Array(all[min(max(0, f.line - 1), all.count)..<min(max(f.line - 1, f.endLine), all.count)]) }
        }
        var before: [String: [SourceOutline.Function]] = [:], after: [String: [SourceOutline.Function]] = [:]
        for f in a { before[f.name, default: []].append(f) }
        for f in b { after[f.name, default: []].append(f) }
        for name in Set(before.keys).union(after.keys).sorted() {
            let place = "\(path):\(name)", x = before[name] ?? [], y = after[name] ?? []
            let isDifferent = x.map(\.body) != y.map(\.body) || x.map(\.head) != y.map(\.head)
            if isDifferent, result.changes.count < Self.changesMax {
                result.changes.append(SourceChange(file: path, name: name, old: text(oldLines, x), new: text(newLines, y)))
            }
            if x.isEmpty {
                result.added.append(place)
            } else if y.isEmpty {
                result.removed.append(place)
            } else if isDifferent {
                result.changed.append(place)
                if let f = y.first(where: \.hasEntangledLocals) ?? x.first(where: \.hasEntangledLocals) {
                    result.answer = .differs
                    add(
                        "source-local-changed", path, f.line,
                        "\(name) changed, and has data that outlives a call whose size or type depends on it.",
                        "Whether that data is as before.")
                }
            }
        }
    }

    // MARK: Findings

    private mutating func differs(_ code: String, _ path: String, _ i: SourceOutline.Item, _ sentence: String, _ decide: String) {
        result.answer = .differs
        add(code, path, i.line, sentence, decide)
    }

    private mutating func unknown(_ code: String, _ path: String, _ line: Int?, _ sentence: String, _ decide: String) {
        if result.answer != .differs { result.answer = .unknown }
        add(code, path, line, sentence, decide)
    }

    private mutating func add(_ code: String, _ path: String, _ line: Int?, _ sentence: String, _ decide: String) {
        guard result.findings.count < Self.findingsMax else { return left += 1 }
        result.findings.append(
            Finding(code, path + (line.map { ":\($0)" } ?? ""), sentence, remedy: "To decide: " + decide, verdict: .review))
    }
}
