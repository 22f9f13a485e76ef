// What debug information says about the layout of data: every named type and every variable that lasts, as text that is equal
// where the layout is.

/// The types and variables of one linked file.
public struct DebugTypes: Sendable {
    /// Types inside types are followed this far; deeper ones make the answer "cannot tell".
    static let depthMax = 64
    static let layoutBytesMax = 1 << 20
    /// Types looked at for one layout: nameless ones may refer to each other in ways that would never end.
    static let stepsMax = 100_000

    /// `struct a`, `enum a`, `variable f: x` -> for each source file that has it, the layout.
    public private(set) var layouts: [String: [String: String]] = [:]
    /// Addresses of the code that the information is about, sorted.
    public private(set) var covered: [Range<LinkAddress>] = []
    /// Some types are in another file, or were not understood.
    public private(set) var isIncomplete = false

    public var isEmpty: Bool { covered.isEmpty }

    /// Reads the sections of `file`. Failures: `debug-malformed`, `debug-compressed`, `limit-exceeded`.
    public init(_ file: ELFFile) throws(Failure) {
        let all = try DebugEntries(file)
        isIncomplete = all.isIncomplete
        covered = all.units.flatMap(\.ranges).sorted { ($0.lowerBound, $0.upperBound) < ($1.lowerBound, $1.upperBound) }
        var writer = LayoutWriter(all)
        for i in all.entries.indices {
            guard let (key, layout) = writer.layout(i) else { continue }
            let unit = all.units[Int(all.unitOf[i])].name
            // One source file may hold several types of one name, in different scopes of different functions: all count.
            if let known = layouts[key]?[unit], known != layout {
                layouts[key]?[unit] = [known, layout].sorted().joined(separator: " | ")
            } else {
                layouts[key, default: [:]][unit] = layout
            }
        }
        isIncomplete = isIncomplete || writer.isIncomplete
    }

    /// True when the information is about all of these addresses.
    public func covers(_ range: Range<LinkAddress>) -> Bool {
        var at = range.lowerBound
        for r in covered where r.lowerBound <= at && at < r.upperBound {
            at = r.upperBound
            if at >= range.upperBound { return true }
        }
        return false
    }
}

/// Writes layouts as text. Types are followed through names only where the name is compared by itself.
private struct LayoutWriter {
    let all: DebugEntries
    var isIncomplete = false
    private var steps = 0
    /// Children of each entry.
    private var children: [Int: [Int]] = [:]
    /// Types without a name, by the name that a typedef gives them.
    private var given: [Int: String] = [:]

    init(_ all: DebugEntries) {
        self.all = all
        for (i, e) in all.entries.enumerated() {
            switch e.kind {
            case .member, .inheritance, .enumerator, .subrange, .parameter, .moreParameters, .function:
                if let p = e.parent { children[p, default: []].append(i) }
            case .typedef:
                if let t = e.type.flatMap(all.index), all.entries[t].name.isEmpty, given[t] == nil { given[t] = e.name }
            default: break
            }
        }
    }

    /// The key and layout of a type or variable that is compared by its own name; nil for other entries.
    mutating func layout(_ i: Int) -> (key: String, layout: String)? {
        let e = all.entries[i]
        guard !e.isDeclaration else { return nil }
        steps = 0
        switch e.kind {
        case .structure, .union:
            guard let name = name(i), e.size != nil else { return nil }
            return (word(e.kind) + " " + name, body(i, 0))
        case .enumeration:
            guard let name = name(i) else { return nil }
            return ("enum " + name, body(i, 0))
        case .enumerator:
            // Those of nameless enumerations stand for themselves.
            guard let p = e.parent, name(p) == nil else { return nil }
            return ("enumerator " + scope(p) + e.name, "\(e.value ?? 0)")
        case .variable:
            guard e.hasAddress else { return nil }
            let origin = e.origin.flatMap(all.index)
            let own = e.name.isEmpty ? origin.map { all.entries[$0].name } ?? "" : e.name
            guard !own.isEmpty else { return nil }
            let type = e.type ?? origin.flatMap { all.entries[$0].type }
            return ("variable " + scope(origin ?? i) + own, describe(type, 0))
        default: return nil
        }
    }

    private func word(_ k: DebugEntry.Kind) -> String { k == .union ? "union" : k == .enumeration ? "enum" : "struct" }

    private func name(_ i: Int) -> String? {
        if !all.entries[i].name.isEmpty { return scope(i) + all.entries[i].name }
        if let own = given[i] { return scope(i) + own }
        // A class that is defined apart from where it is declared.
        guard let origin = all.entries[i].origin.flatMap(all.index), origin != i, !all.entries[origin].name.isEmpty else { return nil }
        return scope(origin) + all.entries[origin].name
    }

    /// Names of what it stands in: namespaces, classes, functions.
    private func scope(_ i: Int) -> String {
        var parts: [String] = [], at = all.entries[i].parent, steps = 0
        while let p = at, steps < DebugTypes.depthMax {
            let e = all.entries[p]
            if [.namespace, .structure, .union, .function].contains(e.kind) {
                var name = e.name
                if name.isEmpty, let o = e.origin.flatMap(all.index) { name = all.entries[o].name }
                parts.append(name.isEmpty ? "?" : name)
            }
            at = e.parent
            steps += 1
        }
        return parts.reversed().map { $0 + ": " }.joined()
    }

    /// Size and contents of a structure, union or enumeration.
    private mutating func body(_ i: Int, _ depth: Int) -> String {
        let e = all.entries[i]
        var text = "\(e.size ?? -1) bytes"
        for child in children[i] ?? [] {
            guard text.utf8.count < DebugTypes.layoutBytesMax else {
                isIncomplete = true
                return text
            }
            let c = all.entries[child]
            switch c.kind {
            case .member where !c.isDeclaration:
                // A static member is no part of the object.
                text +=
                    "; \(c.place ?? 0)\(c.bitSize.map { " bits \(c.bitPlace ?? 0)+\($0)" } ?? "") \(c.name): " + describe(c.type, depth + 1)
            case .inheritance: text += "; \(c.place ?? 0) base \(hexDigits(c.virtualPlace)): " + describe(c.type, depth + 1)
            case .enumerator: text += "; \(c.name) = \(c.value ?? 0)"
            case .function where !c.virtualPlace.isEmpty: text += "; virtual \(c.name) \(hexDigits(c.virtualPlace))"
            default: break
            }
        }
        return text
    }

    /// A type where it is used.
    private mutating func describe(_ place: Int?, _ depth: Int) -> String {
        guard let place else { return "void" }
        steps += 1
        guard depth < DebugTypes.depthMax, steps < DebugTypes.stepsMax, let i = all.index(at: place) else {
            isIncomplete = true
            return "?"
        }
        let e = all.entries[i]
        switch e.kind {
        case .base: return "\(e.name)#\(e.size ?? 0).\(e.encoding ?? 0)"
        case .pointer: return "*" + describe(e.type, depth + 1)
        case .reference: return "&" + describe(e.type, depth + 1)
        case .qualifier, .typedef: return describe(e.type, depth + 1)
        case .array:
            let counts = (children[i] ?? []).filter { all.entries[$0].kind == .subrange }.map {
                all.entries[$0].value.map(String.init) ?? ""
            }
            return describe(e.type, depth + 1) + "[" + counts.joined(separator: "][") + "]"
        case .routine:
            let parameters = (children[i] ?? []).map {
                all.entries[$0].kind == .moreParameters ? "..." : describe(all.entries[$0].type, depth + 1)
            }
            return "(" + parameters.joined(separator: ", ") + ") -> " + describe(e.type, depth + 1)
        case .structure, .union, .enumeration:
            if let target = e.origin.flatMap(all.index), e.isDeclaration, target != i { return describe(e.origin, depth + 1) }
            if let name = name(i) { return word(e.kind) + " " + name + (e.isDeclaration ? "" : "#\(e.size ?? 0)") }
            return "{" + body(i, depth + 1) + "}"
        case .memberPointer: return "member*" + describe(e.type, depth + 1)
        default:
            isIncomplete = true
            return "?"
        }
    }
}
