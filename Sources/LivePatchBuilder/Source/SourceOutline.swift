// Reads one source file into what stands outside function bodies, piece by piece, and the bodies themselves. Text is taken
// for the inside of a function only where no reading of the file makes it anything else.
//
// Conditions of the preprocessor are not evaluated: the file is read under every combination of them that its braces allow,
// several readings side by side. A word belongs to a body if it does so in all readings.

package struct SourceOutline: Sendable {
    /// Readings side by side; a file that needs more is not understood.
    static let readingsMax = 64

    enum Kind: String, Sendable {
        /// The head of a function with its body here, and a declaration of one.
        case function, prototype
        case declaration, type, enumeration, initialiser, macro, include, condition, directive
        /// Inside a body: what outlives the call (a static variable) or shapes other things (a type).
        case local
        /// Not understood.
        case unclear
    }

    /// A piece of text outside bodies. Two files with equal pieces in equal order declare the same.
    struct Item: Sendable {
        var kind: Kind
        /// The tokens, and where it matters their surroundings, in one spelling.
        var text: String
        var name: String
        var line: Int
        var isInType: Bool
        /// Index of the first token.
        fileprivate(set) var at: Int
    }

    struct Function: Sendable {
        var name: String
        var head: String
        var line: Int
        var endLine: Int
        var body: [String]
        /// Something inside outlives the call and depends on what stands around it.
        var hasEntangledLocals: Bool
    }

    private(set) var items: [Item] = []
    private(set) var functions: [Function] = []
    /// Why the file cannot be read, with the line.
    private(set) var unreadable: (why: String, line: Int)?
    private(set) var tokens: [CToken]
    let isCPlusPlus: Bool

    private let macros: SourceMacros
    private var seen: Set<[Int]> = []
    /// Opening braces that directly hold a statement: nothing but a function's body does.
    private var statementGroups: Set<Int> = []
    /// What stands inside a group that may be a body: counts once it is one.
    private var pending: [Int: [Item]] = [:]
    private var closings: [(open: Int, close: Int, head: [Int], isInType: Bool, isStrict: Bool)] = []

    init(_ source: CTokens, macros: SourceMacros, isCPlusPlus: Bool) {
        tokens = source.tokens
        self.macros = macros
        self.isCPlusPlus = isCPlusPlus
        if source.hasTrigraphs { unreadable = ("it has trigraphs", 1) }
        read()
        finish()
    }

    // MARK: Readings

    private enum Scope: Equatable { case plain, type, enumeration, initialiser, body, inner }

    private struct Frame: Equatable {
        var scope: Scope
        var open: Int
        /// Parentheses open outside the brace.
        var parens: Int
        /// What stood before the brace.
        var head: [Int]
    }

    /// One way to read the file up to here.
    private struct Reading {
        var frames: [Frame] = []
        /// The piece that is being read, outside bodies.
        var head: [Int] = []
        var parens = 0
        /// Inside bodies: where the statement began, and what it needs to be kept as a whole.
        var statement: Int?
        var local: (depth: Int, isOpen: Bool) = (0, false)
        var assumed: [String: Bool] = [:]
        /// A brace closed that this reading never saw open.
        var isLost = false

        func isLike(_ o: Reading) -> Bool {
            frames == o.frames && head == o.head && parens == o.parens && local.isOpen == o.local.isOpen && local.depth == o.local.depth
                && (!local.isOpen || statement == o.statement)
        }
        /// The outermost group that may be a function's body.
        var body: Int? { frames.first { $0.scope == .body }?.open }
    }

    private struct Condition {
        var start: Int
        var directives: [Int]
        var waiting: [Reading]
        var done: [Reading]
        var bodies: [Int?]
        var text: String
    }

    private mutating func read() {
        var readings = [Reading()]
        var conditions: [Condition] = []
        var context = ""
        for i in tokens.indices {
            guard unreadable == nil else { return }
            let t = tokens[i]
            if t.kind == .directive {
                direct(i, &readings, &conditions)
                context = conditions.map(\.text).joined(separator: " && ")
            } else {
                var isLost = false
                for r in readings.indices where !take(i, &readings[r], context) { isLost = true }
                // No compiler gets through a file this way, so nobody is bound to it.
                if isLost { readings.removeAll { $0.isLost } }
                if isLost, readings.isEmpty { unreadable = ("a brace closes that did not open", t.line) }
                if readings.count > 1, t.is("}") || t.is(";") { readings = Self.merged(readings) }
            }
            if readings.count > Self.readingsMax { unreadable = ("its conditions and braces cannot be told apart", t.line) }
        }
        guard unreadable == nil else { return }
        if !conditions.isEmpty { unreadable = ("a condition is not closed", tokens.last?.line ?? 1) }
        let complete = readings.filter { $0.frames.isEmpty }
        if complete.isEmpty { unreadable = ("its braces do not match", tokens.last?.line ?? 1) }
        for r in complete where !r.head.isEmpty { emit(.declaration, r.head, inType: false) }
    }

    /// Readings that stand at the same place are one; what they disagree about is open again.
    private static func merged(_ readings: [Reading]) -> [Reading] {
        var result: [Reading] = []
        for r in readings {
            if let i = result.firstIndex(where: { $0.isLike(r) }) {
                result[i].assumed = result[i].assumed.filter { r.assumed[$0.key] == $0.value }
                // Statements only matter where something of them is kept.
                if result[i].statement != r.statement { result[i].statement = min(result[i].statement ?? .max, r.statement ?? .max) }
            } else {
                result.append(r)
            }
        }
        return result
    }

    // MARK: Directives

    private mutating func direct(_ i: Int, _ readings: inout [Reading], _ conditions: inout [Condition]) {
        let t = tokens[i]
        switch t.text {
        case "if", "ifdef", "ifndef":
            let (yes, no) = split(readings, t)
            conditions.append(
                Condition(start: i, directives: [i], waiting: no, done: [], bodies: readings.map(\.body), text: t.spelling))
            readings = yes
        case "elif", "elifdef", "elifndef", "else":
            guard var c = conditions.popLast() else { return unreadable = ("a condition ends that did not begin", t.line) }
            c.directives.append(i)
            c.done += readings
            c.bodies += readings.map(\.body)
            if t.text == "else" { (readings, c.waiting) = (c.waiting, []) } else { (readings, c.waiting) = split(c.waiting, t) }
            c.text += " " + t.spelling
            conditions.append(c)
        case "endif":
            guard var c = conditions.popLast() else { return unreadable = ("a condition ends that did not begin", t.line) }
            c.directives.append(i)
            c.bodies += readings.map(\.body)
            let isReached = !(c.done.isEmpty && readings.isEmpty && c.waiting.isEmpty)
            readings = Self.merged(c.done + readings + c.waiting)
            // Wholly inside one body it is part of the body. Otherwise it shapes what is outside.
            let body = c.bodies.first ?? nil
            let isInside = body != nil && c.bodies.allSatisfy { $0 == body }
            if isReached, !isInside { for d in c.directives { emit(.condition, [d], inType: false) } }
        case "define", "undef":
            forget(t.rest.first?.text, &readings, &conditions)
            if !readings.isEmpty { emit(.macro, [i], inType: false) }
        case "include", "include_next", "import":
            forget(nil, &readings, &conditions)
            if !readings.isEmpty { emit(.include, [i], inType: false) }
        default: if !readings.isEmpty { emit(.directive, [i], inType: false) }
        }
    }

    /// After a definition nothing is assumed any more about its name, nor about what is computed; after an inclusion about
    /// nothing but the language.
    private func forget(_ name: String?, _ readings: inout [Reading], _ conditions: inout [Condition]) {
        func cleared(_ r: Reading) -> Reading {
            var r = r
            r.assumed = r.assumed.filter { assumption in
                if assumption.key == "defined __cplusplus" { return true }
                return name.map { assumption.key.hasPrefix("defined ") && assumption.key.dropFirst(8) != $0 } ?? false
            }
            return r
        }
        readings = readings.map(cleared)
        for c in conditions.indices {
            conditions[c].waiting = conditions[c].waiting.map(cleared)
            conditions[c].done = conditions[c].done.map(cleared)
        }
    }

    /// The readings for which a condition holds, and those for which it does not.
    private func split(_ readings: [Reading], _ t: CToken) -> ([Reading], [Reading]) {
        let (key, isNegated) = Self.key(t)
        if key == "0" { return isNegated ? (readings, []) : ([], readings) }
        if key == "1" { return isNegated ? ([], readings) : (readings, []) }
        var yes: [Reading] = [], no: [Reading] = []
        for r in readings {
            if let known = r.assumed[key] {
                if known != isNegated { yes.append(r) } else { no.append(r) }
                continue
            }
            var a = r, b = r
            a.assumed[key] = !isNegated
            b.assumed[key] = isNegated
            yes.append(a)
            no.append(b)
        }
        return (yes, no)
    }

    private static func key(_ t: CToken) -> (String, isNegated: Bool) {
        var words = t.rest.map(\.text)
        if t.text == "ifdef" || t.text == "elifdef" { return ("defined " + (words.first ?? ""), false) }
        if t.text == "ifndef" || t.text == "elifndef" { return ("defined " + (words.first ?? ""), true) }
        var isNegated = false
        if words.count > 1, words.first == "!",
            words.count == 2 || words.count == 5 && words[1] == "defined" || words.count == 3 && words[1] == "defined"
        {
            isNegated = true
            words.removeFirst()
        }
        if words.count == 4, words[0] == "defined", words[1] == "(" { words = ["defined", words[2]] }
        return (words.joined(separator: " "), isNegated)
    }

    // MARK: Tokens

    /// False when the reading is lost.
    private mutating func take(_ i: Int, _ r: inout Reading, _ context: String) -> Bool {
        let t = tokens[i]
        if t.kind == .broken {
            unreadable = ("the text \(t.text.prefix(12)) cannot be read", t.line)
        } else if t.kind == .word, macros.unbalanced.contains(t.text) {
            // Alone between declarations (`BEGIN_C_DECLS`) it opens a scope that changes nothing.
            if r.body == nil, r.head.isEmpty, r.frames.allSatisfy({ $0.scope == .plain }) {
                emit(.declaration, [i], inType: false)
            } else {
                unreadable = ("the macro \(t.text) opens or closes braces", t.line)
            }
        } else if r.body != nil {
            takeInBody(i, t, &r, context)
        } else {
            takeOutside(i, t, &r)
        }
        return !r.isLost
    }

    private mutating func takeOutside(_ i: Int, _ t: CToken, _ r: inout Reading) {
        let scope = r.frames.last?.scope ?? .plain
        let isInType = r.frames.contains { $0.scope == .type || $0.scope == .enumeration }
        guard t.kind == .punctuation else { return r.head.append(i) }
        switch t.text {
        case "{":
            let next = r.parens > 0 ? .initialiser : scopeOf(r.head, inside: scope)
            if next != .body {
                emit(next == .plain ? .declaration : kind(next), r.head + [i], inType: isInType)
                r.frames.append(Frame(scope: next, open: i, parens: r.parens, head: []))
            } else {
                r.frames.append(Frame(scope: .body, open: i, parens: r.parens, head: r.head))
                r.statement = nil
                r.local = (0, false)
            }
            r.head = []
            r.parens = 0
        case "}":
            guard let frame = r.frames.popLast() else { return r.isLost = true }
            if !r.head.isEmpty { emit(kind(frame.scope), r.head, inType: isInType) }
            r.parens = frame.parens
            r.head = [i]
            if frame.scope == .plain {
                emit(.declaration, [i], inType: false)
                r.head = []
            }
        case "(":
            r.parens += 1
            r.head.append(i)
        case ")":
            r.parens -= 1
            r.head.append(i)
        case ";" where r.parens <= 0:
            r.head.append(i)
            emit(pieceKind(r.head, scope), r.head, inType: isInType)
            r.head = []
            r.parens = 0
        case "," where r.parens <= 0 && (scope == .enumeration || scope == .initialiser):
            r.head.append(i)
            emit(kind(scope), r.head, inType: isInType)
            r.head = []
        default: r.head.append(i)
        }
    }

    private mutating func takeInBody(_ i: Int, _ t: CToken, _ r: inout Reading, _ context: String) {
        guard let frame = r.frames.last, let body = r.body else { return }
        func isLocalBegin() -> Bool {
            guard t.kind == .word else { return false }
            return SourceMacros.lasting.contains(t.text) || t.text == "extern" || macros.declaring.contains(t.text)
                || SourceMacros.typeWords.contains(t.text) && SourceMacros.isDefinition(tokens[...], i)
        }
        if frame.scope == .body, r.parens == 0, t.kind == .word, Self.statementWords.contains(t.text) { statementGroups.insert(body) }
        if r.statement == nil, !t.is("}"), !t.is(";") { r.statement = i }
        if !r.local.isOpen, isLocalBegin() { r.local = (r.frames.count, true) }
        switch t.kind == .punctuation ? t.text : "" {
        case "{":
            r.frames.append(Frame(scope: .inner, open: i, parens: r.parens, head: []))
            r.parens = 0
            if !r.local.isOpen { r.statement = nil }
        case "}":
            r.frames.removeLast()
            r.parens = frame.parens
            if r.local.isOpen, r.frames.count < r.local.depth { endLocal(i, &r, body, context) }
            if !r.local.isOpen { r.statement = nil }
            if frame.scope == .body { close(frame, i, &r) }
        case "(": r.parens += 1
        case ")": r.parens -= 1
        case ";":
            if r.local.isOpen, r.frames.count == r.local.depth, r.parens <= 0 { endLocal(i, &r, body, context) }
            if !r.local.isOpen, r.parens <= 0 { r.statement = nil }
        default: break
        }
    }

    private mutating func endLocal(_ i: Int, _ r: inout Reading, _ body: Int, _ context: String) {
        let start = r.statement ?? i
        r.local = (0, false)
        r.statement = nil
        guard seen.insert([start, i, -1]).inserted else { return }
        let text = (start...i).map { tokens[$0].spelling }.joined(separator: " ")
        pending[body, default: []].append(
            Item(kind: .local, text: context + " | " + text, name: "", line: tokens[start].line, isInType: false, at: start))
    }

    /// The group that may be a body has ended; whether it was one is known when the whole file is read.
    private mutating func close(_ frame: Frame, _ i: Int, _ r: inout Reading) {
        r.head = []
        r.parens = 0
        r.local = (0, false)
        guard seen.insert([frame.open, i, -2]).inserted else { return }
        let isInType = r.frames.contains { $0.scope == .type || $0.scope == .enumeration }
        closings.append((frame.open, i, frame.head, isInType, isStrictHead(frame.head)))
    }

    /// A word that only stands directly inside a function's body.
    private static let statementWords: Set<String> = ["if", "for", "while", "do", "switch", "return", "goto", "else", "break", "continue"]

    // MARK: What braces hold

    private func kind(_ s: Scope) -> Kind {
        switch s {
        case .type: .type
        case .enumeration: .enumeration
        case .initialiser: .initialiser
        default: .declaration
        }
    }

    private func scopeOf(_ head: [Int], inside scope: Scope) -> Scope {
        if scope == .initialiser || scope == .enumeration { return .initialiser }
        let words = topLevel(head)
        let texts = words.map { tokens[$0].text }
        if !texts.contains("operator"), words.contains(where: { tokens[$0].is("=") }) { return .initialiser }
        if texts.contains("namespace") { return .plain }
        if texts.first == "extern", head.count == 2, tokens[head[1]].kind == .text { return .plain }
        if isStrictHead(head) { return .body }
        guard let word = texts.lastIndex(where: { SourceMacros.typeWords.contains($0) }) else { return .body }
        if texts[word] == "enum" || texts.dropFirst(word).contains("enum") { return .enumeration }
        // `struct a *f(…)`: a pointer says that what follows is no definition.
        let hasList = head.last.map { tokens[$0].is(")") } ?? false
        return hasList && texts.dropFirst(word).contains("*") ? .body : .type
    }

    /// Indices outside parentheses, attributes, brackets and template parameters.
    private func topLevel(_ head: [Int]) -> [Int] {
        var result: [Int] = [], parens = 0, angles = 0
        for (n, i) in head.enumerated() {
            let t = tokens[i]
            if t.is("(") || t.is("[") { parens += 1 }
            if angles > 0 || t.is("<") && n > 0 && tokens[head[n - 1]].text == "template" {
                if t.is("<") { angles += 1 }
                if t.is(">") { angles -= 1 }
            } else if parens == 0 {
                result.append(i)
            }
            if t.is(")") || t.is("]") { parens -= 1 }
        }
        return result
    }

    /// The declarator's name in `words name(parameters)`, its parameters, and what stands before; nil for any other shape.
    private func declarator(_ head: [Int]) -> (name: Int, parameters: ArraySlice<Int>, before: ArraySlice<Int>)? {
        var end = head.count
        func open(_ close: Int) -> Int? {
            var depth = 0
            for n in stride(from: close, through: 0, by: -1) {
                if tokens[head[n]].is(")") { depth += 1 }
                if tokens[head[n]].is("(") {
                    depth -= 1
                    if depth == 0 { return n }
                }
            }
            return nil
        }
        while end > 0 {
            guard tokens[head[end - 1]].is(")"), let start = open(end - 1), start > 0 else { return nil }
            if ["__attribute__", "__attribute"].contains(tokens[head[start - 1]].text) {
                end = start - 1
                continue
            }
            guard tokens[head[start - 1]].kind == .word else { return nil }
            return (start - 1, head[start + 1..<end - 1], head[..<(start - 1)])
        }
        return nil
    }

    /// `words name(type parameter, …)`: nothing that this tree's macros could turn into anything but a function.
    private func isStrictHead(_ head: [Int]) -> Bool {
        guard let d = declarator(head), d.name > 0 else { return false }
        let name = tokens[head[d.name]].text
        guard !macros.names.contains(name), !SourceMacros.words.contains(name) else { return false }
        var parens = 0
        var hasWord = false
        for n in d.before {
            let t = tokens[n]
            if t.is("(") { parens += 1 } else if t.is(")") { parens -= 1 }
            guard parens == 0, !t.is(")") else { continue }
            guard t.kind == .word || t.is("*") else { return false }
            if t.kind == .word {
                hasWord = true
                if macros.shaping.contains(t.text) || t.text == "typedef" { return false }
            }
        }
        guard hasWord, let last = d.before.last, !SourceMacros.typeWords.contains(tokens[last].text) else { return false }
        // A macro's arguments before the name are its own matter only if it is an attribute.
        if d.before.contains(where: { tokens[$0].is("(") }), !d.before.contains(where: { tokens[$0].text.hasPrefix("__attribute") }) {
            return false
        }
        return areTyped(d.parameters)
    }

    private func areTyped(_ parameters: ArraySlice<Int>) -> Bool {
        if parameters.count == 1, let only = parameters.first, tokens[only].text == "void" { return true }
        guard !parameters.isEmpty else { return false }
        var parts: [[CToken]] = [[]], depth = 0
        for n in parameters {
            let t = tokens[n]
            if t.is("(") || t.is("[") { depth += 1 }
            if t.is(")") || t.is("]") { depth -= 1 }
            if t.is(","), depth == 0 { parts.append([]) } else { parts[parts.count - 1].append(t) }
        }
        return parts.allSatisfy { part in
            if part.count == 3, part.allSatisfy({ $0.is(".") }) { return true }
            guard part.count >= 2, part[0].kind == .word else { return false }
            return part.allSatisfy { $0.kind == .word || $0.kind == .number || "*[](),".contains($0.text) } && !part[1].is("(")
        }
    }

    private func pieceKind(_ head: [Int], _ scope: Scope) -> Kind {
        if scope != .plain { return kind(scope) }
        let words = topLevel(head)
        if words.contains(where: { tokens[$0].is("=") }) { return .initialiser }
        if words.contains(where: { tokens[$0].text == "typedef" }) { return .type }
        return isStrictHead(Array(head.dropLast())) ? .prototype : .declaration
    }

    // MARK: Results

    private mutating func emit(_ kind: Kind, _ indices: [Int], inType: Bool) {
        guard let first = indices.first, let last = indices.last, seen.insert([first, last, indices.count]).inserted else { return }
        let head = tokens[last].is(";") ? Array(indices.dropLast()) : indices
        var name = kind == .macro ? tokens[first].rest.first?.text ?? "" : nameOf(head)
        // Parameters declared behind the list: `int f(a) int a;`.
        if name.isEmpty, kind == .declaration { name = firstCall(head).map { tokens[head[$0]].text } ?? "" }
        items.append(
            Item(
                kind: kind, text: indices.map { tokens[$0].spelling }.joined(separator: " "), name: name, line: tokens[first].line,
                isInType: inType, at: first))
    }

    private mutating func finish() {
        guard unreadable == nil else {
            (items, functions) = ([], [])
            return
        }
        // A group inside another counts only where the outer one is what it seems.
        for c in closings {
            let isBody = (statementGroups.contains(c.open) || c.isStrict) && !computesTypes(c.head)
            guard isBody else {
                emit(.unclear, c.head + Array(c.open...c.close), inType: c.isInType)
                continue
            }
            let locals = pending[c.open] ?? []
            let head = c.head.map { tokens[$0].text }.joined(separator: " ")
            var name = nameOf(c.head)
            if name.isEmpty { name = firstCall(c.head).map { tokens[c.head[$0]].text } ?? nameBefore(c.open) }
            emit(.function, c.head.isEmpty ? [c.open] : c.head, inType: c.isInType)
            for var local in locals {
                local.name = name
                local.text = name + ": " + local.text
                items.append(local)
            }
            let entangling: Set<String> = [
                "sizeof", "typeof", "__typeof__", "__typeof", "decltype", "_Alignof", "alignof", "offsetof", "auto",
            ]
            functions.append(
                Function(
                    name: name, head: head, line: tokens[c.head.first ?? c.open].line, endLine: tokens[c.close].line,
                    body: (c.open...c.close).map { tokens[$0].spelling },
                    hasEntangledLocals: locals.contains { l in
                        isCPlusPlus || l.text.split(separator: " ").contains { entangling.contains(String($0)) }
                    }))
        }
        items.sort { ($0.at, $0.text) < ($1.at, $1.text) }
        functions.sort { $0.line < $1.line }
    }

    /// The body of such a function is read at compile time, or says what the function returns.
    private func computesTypes(_ head: [Int]) -> Bool {
        let texts = Set(head.map { tokens[$0].text })
        if !texts.isDisjoint(with: ["constexpr", "consteval", "decltype", "typeof", "__typeof__", "concept", "requires"]) { return true }
        return texts.contains("auto") && !texts.contains("->")
    }

    /// `f` of `int f(int a)`; of a head that a macro makes, `MACRO(f)`.
    private func nameOf(_ head: [Int]) -> String {
        guard let d = declarator(head) else { return "" }
        let name = tokens[head[d.name]].text
        return d.name > 0 ? name : name + "(" + d.parameters.map { tokens[$0].text }.joined() + ")"
    }

    /// The first word before a parenthesis, where the head has words behind its parameters.
    private func firstCall(_ head: [Int]) -> Int? {
        head.indices.dropLast().first { tokens[head[$0]].kind == .word && tokens[head[$0 + 1]].is("(") }
    }

    /// Where parameters are declared behind the list, the name stands in a piece before the body.
    private func nameBefore(_ open: Int) -> String {
        let piece = items.filter { $0.at < open && ($0.kind == .declaration || $0.kind == .prototype) && !$0.name.isEmpty }.max {
            $0.at < $1.at
        }
        return piece?.name ?? "?"
    }
}

extension SourceOutline {
    /// Reads one file by itself, with the macros it defines: how many pieces stand outside bodies, how many functions it has.
    package static func counts(of text: [UInt8], isCPlusPlus: Bool) -> (pieces: Int, functions: Int) {
        let tokens = CTokens(text)
        var macros = SourceMacros()
        macros.read(tokens, of: "one file")
        let outline = SourceOutline(tokens, macros: macros, isCPlusPlus: isCPlusPlus)
        return (outline.items.count, outline.functions.count)
    }
}
