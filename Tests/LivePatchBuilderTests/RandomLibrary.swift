// Random small libraries and random fixes to them: what a seed gives is always the same. Every statement is defined
// behaviour for every input, so the only difference between two builds is the fix.

/// SplitMix64: the same numbers for the same seed, on every machine.
struct SeededRandom: RandomNumberGenerator {
    private var state: UInt64
    init(_ seed: UInt64) { state = seed &* 0x9e37_79b9_7f4a_7c15 }
    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var z = state
        z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
        z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
        return z ^ (z >> 31)
    }
    mutating func below(_ n: Int) -> Int { n <= 1 ? 0 : Int(next() % UInt64(n)) }
    mutating func chance(_ percent: Int) -> Bool { below(100) < percent }
    mutating func pick<T>(_ a: [T]) -> T { a[below(a.count)] }
}

struct RandomLibrary: Sendable {
    struct Variable: Sendable {
        enum Kind: Sendable, Equatable { case scalar, array(Int), structure(Int) }
        var name: String, file: Int, kind: Kind
    }
    struct Table: Sendable {
        var name: String, file: Int, type: String, values: [Int]
    }
    struct Function: Sendable {
        var name: String, file: Int
        /// Functions call only those of lower rank.
        var rank: Int
        var isExported: Bool
        var statements: [String]
    }
    /// Function pointers in a static table, by function name.
    struct Pointers: Sendable {
        var name: String, file: Int, functions: [String]
    }

    var files: Int
    var variables: [Variable] = []
    var tables: [Table] = []
    var functions: [Function] = []
    var pointers: [Pointers] = []
    /// Blank lines at the start of each file.
    var blankLines: [Int]
    private var serial = 0

    init(_ random: inout SeededRandom) {
        files = 1 + random.below(3)
        blankLines = Array(repeating: 25, count: files)
        for _ in 0..<3 + random.below(8) { addVariable(&random) }
        for _ in 0..<2 + random.below(5) { addTable(&random) }
        // Families of functions that differ in nothing but the variable they use.
        for v in variables where v.kind == .scalar && random.chance(50) { addAccessors(v, at: functions.count) }
        for _ in 0..<6 + random.below(12) { addFunction(&random) }
        if random.chance(60) {
            let file = random.below(files)
            let targets = functions.filter { $0.file == file }.map(\.name)
            if targets.count >= 3 {
                pointers.append(Pointers(name: unique("ops"), file: file, functions: Array(targets.prefix(2 + random.below(3)))))
            }
        }
        for _ in 0..<4 + random.below(6) { addFunction(&random) }
    }

    private mutating func unique(_ stem: String) -> String {
        serial += 1
        return "\(stem)\(serial)"
    }

    mutating func addVariable(_ random: inout SeededRandom, at place: Int? = nil, file: Int? = nil) {
        let kinds: [Variable.Kind] = [.scalar, .scalar, .scalar, .array(8 << random.below(3)), .structure(2 + random.below(4))]
        let v = Variable(name: unique("v"), file: file ?? random.below(files), kind: random.pick(kinds))
        variables.insert(v, at: place ?? variables.count)
    }

    mutating func addTable(_ random: inout SeededRandom) {
        let count = 8 << random.below(3)
        tables.append(
            Table(
                name: unique("t"), file: random.below(files), type: random.pick(["unsigned char", "short", "int", "long"]),
                values: (0..<count).map { _ in random.below(120) }))
    }

    mutating func addFunction(_ random: inout SeededRandom, file: Int? = nil, exported: Bool? = nil) {
        let f = file ?? random.below(files)
        var made = Function(name: unique("f"), file: f, rank: functions.count, isExported: exported ?? random.chance(45), statements: [])
        for _ in 0..<2 + random.below(5) { made.statements.append(statement(&random, f, made.rank)) }
        functions.append(made)
    }

    /// Two small functions that are all there is about a variable.
    private mutating func addAccessors(_ v: Variable, at place: Int, rank: Int? = nil) {
        let get = ["s ^= \(v.name);", "while (n > 0) { s = s * 3 + k; n >>= 1; }"],
            put = ["\(v.name) = s;", "while (n > 0) { s = s * 5 + k; n >>= 2; }"]
        for (name, body) in [("get_", get), ("put_", put)] {
            functions.insert(
                Function(name: name + v.name, file: v.file, rank: rank ?? functions.count, isExported: false, statements: body), at: place)
        }
    }

    /// One statement that a function of this file and rank may hold. `n`, `k` are its arguments, `s` its result.
    func statement(_ random: inout SeededRandom, _ file: Int, _ rank: Int) -> String {
        let c = 1 + random.below(200), d = 1 + random.below(90)
        let vars = variables.filter { $0.file == file }, tabs = tables.filter { $0.file == file }
        let callable = functions.filter { $0.rank < rank && ($0.isExported || $0.file == file) }
        switch random.below(13) {
        case 0, 1, 2:
            guard !vars.isEmpty else { return "s ^= n + \(c);" }
            let v = random.pick(vars)
            switch v.kind {
            case .scalar:
                return random.pick([
                    "s += \(v.name) * \(d);", "\(v.name) = (\(v.name) + n) & 0xffff;", "\(v.name) ^= s & \(c); s += \(v.name);",
                ])
            case .array(let n):
                return random.pick([
                    "\(v.name)[(n + \(c)) & \(n - 1)] += s & 0xff;", "s += \(v.name)[s & \(n - 1)];", "s ^= \(v.name)[\(random.below(n))];",
                    "for (long *p = \(v.name); p != \(v.name) + \(n); p++) s = s * 3 + *p;", "s += sum(\(v.name), \(n));",
                ])
            case .structure(let n):
                return random.pick([
                    "\(v.name).m\(random.below(n)) += n;", "s ^= \(v.name).m\(random.below(n));",
                    "s += touch((long *)&\(v.name), \(n), n);",
                ])
            }
        case 3, 4:
            guard !tabs.isEmpty else { return "s = s * 7 + k;" }
            let t = random.pick(tabs)
            return random.pick([
                "s = s * 3 + \(t.name)[(n ^ \(c)) & \(t.values.count - 1)];", "s += \(t.name)[\(random.below(t.values.count))];",
                "for (int i = 0; i < \(t.values.count); i++) s = s * 5 + \(t.name)[i];",
                "for (const \(t.type) *p = \(t.name); p != \(t.name) + \(t.values.count); p++) s = s * 5 + *p;",
                "s += \(t.name)[((n & 15) + 'a') % \(t.values.count)];",
            ])
        case 5, 6:
            guard !callable.isEmpty else { return "s -= n & \(c);" }
            return "s += \(random.pick(callable).name)(n & 0xff, s & 0x3f);"
        case 7:
            let cases = (0..<5 + random.below(4)).map { "case \($0): s += n * \(1 + random.below(50)) + \(random.below(9)); break;" }
            return "switch (n & 15) { \(cases.joined(separator: " ")) default: s -= \(d); }"
        case 8:
            let text = random.pick(["alpha", "beta", "a longer text", "text", "gamma ray"])
            return "s += hash(\"\(text)\(random.chance(50) ? "" : String(c))\");"
        case 9: return "if (n > \(c)) return s ^ \(d);"
        case 10:
            guard let p = pointers.first(where: { $0.file == file }), rank >= functions.count else { return "s += k >> \(c & 7);" }
            return "s += \(p.name)[n % \(p.functions.count)].f(s & 15, n & 15);"
        case 11: return random.chance(50) ? "NOTE(s);" : "if (__builtin_expect(n == \(c), 0)) { s += rare(s) + \(d); }"
        default: return "for (long i = 0; i < (n & 15); i++) s += i * \(c) ^ k;"
        }
    }

    /// One of the changes that fixes make. Returns what was done, for people.
    mutating func mutate(_ random: inout SeededRandom) -> String {
        let i = random.below(functions.count), f = functions[i]
        let at = random.below(f.statements.count + 1)
        switch random.below(19) {
        case 17, 18:
            // A new member of a family, before or behind the others, and reached through its functions only.
            addVariable(&random, at: random.below(variables.count + 1), file: f.file)
            guard let v = variables.first(where: { $0.name == "v\(serial)" && $0.kind == .scalar }) else {
                variables.removeAll { $0.name == "v\(serial)" }
                return "nothing"
            }
            addAccessors(v, at: random.chance(50) ? 0 : functions.count, rank: -1)
            guard let user = functions.firstIndex(where: { $0.name == f.name }) else { return "nothing" }
            functions[user].statements.insert("s += put_\(v.name)(n & 7, s) - get_\(v.name)(n & 7, k);", at: min(at, 1))
            return "\(v.name) with functions of its own for \(f.name)"
        case 0, 1, 2:
            functions[i].statements.insert("if (n > \(20 + random.below(200))) return -\(1 + random.below(9));", at: at)
            return "a check in \(f.name)"
        case 3, 4:
            functions[i].statements.insert(statement(&random, f.file, f.rank), at: at)
            return "a statement in \(f.name)"
        case 5:
            guard f.statements.count > 1 else { return "nothing" }
            functions[i].statements.remove(at: min(at, f.statements.count - 1))
            return "one statement less in \(f.name)"
        case 6:
            let t = random.below(tables.count)
            tables[t].values[random.below(tables[t].values.count)] ^= 1 + random.below(7)
            return "an entry of \(tables[t].name)"
        case 7:
            addVariable(&random, at: random.below(variables.count + 1), file: f.file)
            guard let v = variables.first(where: { $0.name == "v\(serial)" }) else { return "nothing" }
            let use: String =
                switch v.kind {
                case .scalar: "\(v.name) += n & 7; s += \(v.name);"
                case .array(let n): "\(v.name)[n & \(n - 1)] += 1 + (n & 3); s += sum(\(v.name), \(n));"
                case .structure(let n): "\(v.name).m\(n - 1) += n & 7; s += touch((long *)&\(v.name), \(n), 1);"
                }
            functions[i].statements.insert(use, at: at)
            return "new variable \(v.name) in \(f.name)"
        case 8:
            addFunction(&random, file: f.file, exported: false)
            var helper = functions.removeLast()
            helper.rank = f.rank
            helper.statements = (0..<3).map { _ in statement(&random, f.file, f.rank) }
            functions.insert(helper, at: random.chance(50) ? i : i + 1)
            let caller = functions.firstIndex { $0.name == f.name } ?? i
            functions[caller].statements.insert("s += \(helper.name)(n & 0x7f, k);", at: at)
            return "helper \(helper.name) for \(f.name)"
        case 9:
            // The same statements about another variable of the same kind.
            guard let v = variables.first(where: { v in v.file == f.file && f.statements.contains { uses($0, v.name) } }),
                let w = variables.first(where: { $0.file == v.file && $0.kind == v.kind && $0.name != v.name })
            else { return "nothing" }
            functions[i].statements = f.statements.map { rename($0, v.name, w.name) }
            return "\(w.name) instead of \(v.name) in \(f.name)"
        case 10:
            variables.swapAt(random.below(variables.count), random.below(variables.count))
            return "variables in another order"
        case 11:
            functions.swapAt(i, random.below(functions.count))
            return "functions in another order"
        case 12:
            for v in variables.indices {
                guard case .array(let n) = variables[v].kind else { continue }
                let name = variables[v].name
                variables[v].kind = .array(n * 2)
                if let user = functions.firstIndex(where: { f in f.statements.contains { uses($0, name) } }) {
                    functions[user].statements.append("\(name)[(n & \(n - 1)) + \(n)] += 5; s += \(name)[(k & \(n - 1)) + \(n)];")
                }
                return "\(name) is longer"
            }
            return "nothing"
        case 13:
            for v in variables.indices {
                guard case .structure(let n) = variables[v].kind else { continue }
                let name = variables[v].name
                variables[v].kind = .structure(n + 1)
                if let user = functions.firstIndex(where: { f in f.statements.contains { uses($0, name) } }) {
                    functions[user].statements.append("\(name).m\(n) += n & 3; s += \(name).m\(n);")
                }
                return "\(name) has a member more"
            }
            return "nothing"
        case 14:
            blankLines[f.file] += 1 + random.below(4)
            return "lines moved in file \(f.file)"
        case 15:
            guard !pointers.isEmpty else { return "nothing" }
            pointers[0].functions.swapAt(0, pointers[0].functions.count - 1)
            return "other order in \(pointers[0].name)"
        default:
            functions[i].statements = f.statements.map { $0.replacing("text", with: "other text") }
            return "other text in \(f.name)"
        }
    }

    private func uses(_ statement: String, _ name: String) -> Bool { statement != rename(statement, name, "") }

    /// The statement with another word in place of one.
    private func rename(_ statement: String, _ a: String, _ b: String) -> String {
        var result = "", word = ""
        for c in statement + " " {
            if c.isLetter || c.isNumber || c == "_" {
                word.append(c)
            } else {
                result += word == a ? b : word
                result.append(c)
                word = ""
            }
        }
        return String(result.dropLast())
    }

    /// Exported functions that behave alike in both libraries, whatever state they find: they may run before the patch.
    func unchangedExports(_ other: RandomLibrary) -> [String] {
        var touched: Set<String> = []
        for f in other.functions {
            if functions.first(where: { $0.name == f.name })?.statements != f.statements { touched.insert(f.name) }
        }
        for t in tables where other.tables.first(where: { $0.name == t.name })?.values != t.values { touched.insert(t.name) }
        for p in pointers where other.pointers.first(where: { $0.name == p.name })?.functions != p.functions { touched.insert(p.name) }
        // What takes a whole variable sees that it grew.
        for v in variables where other.variables.first(where: { $0.name == v.name })?.kind != v.kind { touched.insert(v.name) }
        var again = true
        while again {
            again = false
            let tables = other.pointers.filter { !$0.functions.allSatisfy { !touched.contains($0) } }.map(\.name)
            for f in other.functions where !touched.contains(f.name) {
                guard touched.union(tables).contains(where: { name in f.statements.contains { uses($0, name) } }) else { continue }
                touched.insert(f.name)
                again = true
            }
        }
        return functions.filter { $0.isExported && !touched.contains($0.name) }.map(\.name)
    }

    /// C sources, one a file.
    func sources() -> [(name: String, text: String)] {
        (0..<files).map { file in
            var text = """
                static __attribute__((noipa)) long hash(const char *s) { long h = 5; while (*s) h = h * 33 + *s++; return h & 0xffff; }
                static __attribute__((noipa)) long sum(const long *p, long n) { long s = 0; for (long i = 0; i < n; i++) s = s * 3 + p[i]; return s & 0xffff; }
                static __attribute__((noipa)) long touch(long *p, long n, long by) { p[n - 1] += by & 3; return p[0] + p[n - 1]; }
                static long rarely;
                static __attribute__((noipa, cold)) long rare(long n) { rarely += n & 3; return rarely; }
                long rarely_in_\(file)(long a, long b) { return rarely + a; }
                static long noted, last_line;
                static __attribute__((noipa)) void note(const char *file, int line, long v) { noted++; if (v == 0x7123456789abcdef) last_line = line + *file; }
                #define NOTE(v) note(__FILE__, __LINE__, v)
                long noted_in_\(file)(long a, long b) { return noted * 3 + a; }

                """
            for f in functions where f.isExported { text += "long \(f.name)(long, long);\n" }
            for f in functions where !f.isExported && f.file == file { text += "static long \(f.name)(long, long);\n" }
            text += String(repeating: "\n", count: blankLines[file])
            for v in variables where v.file == file {
                switch v.kind {
                case .scalar: text += "static long \(v.name);\n"
                case .array(let n): text += "static long \(v.name)[\(n)];\n"
                case .structure(let n):
                    text += "static struct { long \((0..<n).map { "m\($0)" }.joined(separator: ", ")); } \(v.name);\n"
                }
            }
            for t in tables where t.file == file {
                text += "static const \(t.type) \(t.name)[\(t.values.count)] = {\(t.values.map(String.init).joined(separator: ", "))};\n"
            }
            for p in pointers where p.file == file {
                let entries = p.functions.map { "{\($0)}" }.joined(separator: ", ")
                text += "static const struct { long (*f)(long, long); } \(p.name)[] = {\(entries)};\n"
            }
            for f in functions where f.file == file {
                text +=
                    "\(f.isExported ? "" : "static __attribute__((noinline)) ")long \(f.name)(long n, long k) {\n    long s = n * 3 + k;\n"
                text += f.statements.map { "    \($0)\n" }.joined() + "    return s & 0xffffffff;\n}\n"
            }
            return ("part\(file).c", text)
        }
    }
}
