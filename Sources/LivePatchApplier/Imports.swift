// Finds what a patch needs of other objects in a process: the one definition that the loader would have bound it to. Where more
// than one object could be meant, nothing is chosen.

import ELF
import LivePatch
import ProcessControl

struct Imports {
    private let objects: [LoadedObject]
    private let memory: any MemoryReader

    init(_ objects: [LoadedObject], _ memory: any MemoryReader) {
        self.objects = objects
        self.memory = memory
    }

    /// The address of each import of the patch for the object that it is for. Empty for a patch without imports.
    /// Failure: `import-unresolved`, with the symbol.
    func addresses(for patch: LivePatch, of object: LoadedObject) throws(Failure) -> [String: RuntimeAddress] {
        let names = patch.contents.imports
        if names.isEmpty { return [:] }
        var result: [String: RuntimeAddress] = [:]
        let tables = objects.map { ($0, DynamicSymbols(memory, bias: $0.bias, segments: $0.segments, extent: $0.extent)) }
        let reach = Self.needed(by: object, tables)
        for name in names { result[name] = try address(of: name, tables, reach) }
        return result
    }

    private typealias Tables = [(object: LoadedObject, symbols: DynamicSymbols?)]

    /// Sonames of the object's needs, and of theirs.
    private static func needed(by object: LoadedObject, _ tables: Tables) -> Set<String> {
        var known: Set<String> = []
        var next = tables.first { $0.object.bias == object.bias }?.symbols?.needed ?? []
        while let name = next.popLast() {
            guard known.insert(name).inserted else { continue }
            next += tables.first { $0.symbols?.soname == name }?.symbols?.needed ?? []
        }
        return known
    }

    private func address(of key: String, _ tables: Tables, _ reach: Set<String>) throws(Failure) -> RuntimeAddress {
        func unresolved(_ sentence: String) -> Failure {
            Failure("import-unresolved", sentence, at: key, remedy: "Restart the process with the fixed package.")
        }
        let parts = key.split(separator: "@", maxSplits: 1).map(String.init)
        guard let name = parts.first else { throw unresolved("it has no name.") }
        let version = parts.count > 1 ? parts[1] : nil
        var found: [(object: LoadedObject, soname: String?, definition: DynamicSymbols.Definition)] = []
        for (object, symbols) in tables {
            guard let symbols else { continue }
            // A definition without a version serves every user; one with another version serves none.
            for d in symbols.definitions(named: name, memory) where d.version == nil || version == nil || d.version == version {
                found.append((object, symbols.soname, d))
            }
        }
        guard let one = found.first else { throw unresolved("no object in the process defines it.") }
        guard Set(found.map(\.object.bias)).count == 1, found.count == 1 else {
            throw unresolved("more than one definition is loaded: \(Set(found.map(\.object.path)).sorted().joined(separator: ", ")).")
        }
        guard let soname = one.soname, reach.contains(soname) else {
            throw unresolved("\(one.object.path) defines it, and the patched object does not depend on that.")
        }
        switch one.definition.kind {
        case .function, .object: return one.object.bias.runtime(one.definition.value)
        // Which function that is only its resolver knows.
        default: throw unresolved("\(one.object.path) chooses it when it is bound.")
        }
    }
}
