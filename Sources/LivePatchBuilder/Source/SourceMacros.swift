// What a source tree's own macros can do behind the back of whoever reads its text: open or close braces, bring declarations
// into the middle of a function, or give C's own words another meaning.

/// Facts about all `#define` lines of a tree, whatever conditions they stand under.
struct SourceMacros: Sendable {
    /// A tree with more is not judged.
    static let definitionsMax = 4_000_000
    static let roundsMax = 32

    /// Every name that is defined somewhere.
    private(set) var names: Set<String> = []
    /// Their text has more opening than closing braces, or the other way round.
    private(set) var unbalanced: Set<String> = []
    /// They bring types or variables that outlive a function, themselves or by the macros they use.
    private(set) var declaring: Set<String> = []
    /// As a word before a name they can make something else than a function of `name(…) { … }`.
    private(set) var shaping: Set<String> = []
    /// Words of the language that a macro replaces, with the macro's place.
    private(set) var replacedWords: [String: String] = [:]

    private var uses: [String: Set<String>] = [:]

    static let words: Set<String> = [
        "if", "for", "while", "do", "switch", "return", "goto", "else", "break", "continue", "case", "default", "struct", "union", "enum",
        "class", "typedef", "static", "sizeof", "namespace", "template",
    ]
    /// Storage that outlives a call, and names for types.
    static let lasting: Set<String> = ["static", "typedef", "thread_local", "_Thread_local", "__thread", "using", "constexpr", "constinit"]
    static let typeWords: Set<String> = ["struct", "union", "class", "enum"]

    mutating func read(_ tokens: CTokens, of path: String) { for t in tokens.tokens where t.kind == .directive { read(t, of: path) } }

    private mutating func read(_ t: CToken, of path: String) {
        guard t.text == "define", let name = t.rest.first?.text else { return }
        names.insert(name)
        if Self.words.contains(name), replacedWords[name] == nil { replacedWords[name] = "\(path):\(t.line)" }
        let body = t.rest.dropFirst()
        var depth = 0, lowest = 0
        for (i, b) in zip(body.indices, body) {
            switch (b.kind, b.text) {
            case (.punctuation, "{"): depth += 1
            case (.punctuation, "}"):
                depth -= 1
                lowest = min(lowest, depth)
            case (.broken, _): unbalanced.insert(name)
            case (.word, let word):
                uses[name, default: []].insert(word)
                if Self.lasting.contains(word) || Self.typeWords.contains(word) && Self.isDefinition(body, i) { declaring.insert(name) }
                if Self.typeWords.contains(word) || word == "typedef" { shaping.insert(name) }
            case (.punctuation, "="): shaping.insert(name)
            default: break
            }
        }
        if body.contains(where: { $0.is("{") || $0.is("}") }) { shaping.insert(name) }
        // Also one that closes first and opens again: what stands between two of its uses is not what it seems.
        if depth != 0 || lowest < 0 { unbalanced.insert(name) }
    }

    /// `struct … {` from index `i` on, whatever words, attributes and pastings stand between.
    static func isDefinition(_ tokens: ArraySlice<CToken>, _ i: Int) -> Bool {
        var at = i + 1, parens = 0
        while at < tokens.endIndex {
            let t = tokens[at]
            if t.is("(") { parens += 1 }
            if t.is(")") { parens -= 1 }
            if t.is("{"), parens == 0 { return true }
            let isPart =
                parens > 0 || t.kind == .word || t.is("##") || t.is(":") || t.is("::") || t.is("(") || t.is(")") || t.is("[") || t.is("]")
                || t.is("<") || t.is(">") || t.is(",")
            // `struct a *`, `struct a b;`, `(struct a)`: a use.
            if !isPart || parens < 0 { return false }
            at += 1
        }
        return false
    }

    /// Lets what macros do reach the macros that use them. Call once, when all is read.
    mutating func close() {
        for _ in 0..<Self.roundsMax {
            var changed = false
            for (name, words) in uses {
                if !declaring.contains(name), !words.isDisjoint(with: declaring) { changed = declaring.insert(name).inserted || changed }
                if !shaping.contains(name), !words.isDisjoint(with: shaping) { changed = shaping.insert(name).inserted || changed }
                if !unbalanced.contains(name), !words.isDisjoint(with: unbalanced) { changed = unbalanced.insert(name).inserted || changed }
            }
            if !changed { return }
        }
        // Deeper than anybody writes: then every macro may do anything.
        declaring = names
        shaping = names
        unbalanced = names
    }

    /// Macros of both trees of a comparison count.
    mutating func add(_ other: SourceMacros) {
        names.formUnion(other.names)
        unbalanced.formUnion(other.unbalanced)
        declaring.formUnion(other.declaring)
        shaping.formUnion(other.shaping)
        replacedWords.merge(other.replacedWords) { a, _ in a }
        uses.merge(other.uses) { $0.union($1) }
    }
}
