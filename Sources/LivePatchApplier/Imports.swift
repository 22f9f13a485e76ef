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

    /// The same for a mapping that exists: what its words hold, where that is still a definition of the symbol. Objects that were
    /// loaded since may make a new choice ambiguous; they do not change the one that was made.
    func addresses(for patch: LivePatch, boundAt base: RuntimeAddress) throws(Failure) -> [String: RuntimeAddress] {
        if patch.contents.imports.isEmpty { return [:] }
        let layout = PatchLayout(patch.contents)
        let tables = objects.map { ($0, DynamicSymbols(memory, bias: $0.bias, segments: $0.segments, extent: $0.extent)) }
        var result: [String: RuntimeAddress] = [:]
        for r in patch.contents.relocations where patch.contents.symbols[r.symbol].place == .imported {
            let key = patch.contents.symbols[r.symbol].name
            guard let word = try? memory.read(at: base + layout.partOffset[r.part.rawValue] + r.offset, count: 8),
                let value = Bytes(word, name: "import").u64(0)
            else { continue }
            let place = RuntimeAddress(value &- UInt64(bitPattern: r.addend))
            if definitions(of: key, tables).contains(where: { $0.object.bias.runtime($0.definition.value) == place }) {
                result[key] = place
            }
        }
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

    private func definitions(
        of key: String, _ tables: Tables
    ) -> [(object: LoadedObject, soname: String?, definition: DynamicSymbols.Definition)] {
        let parts = key.split(separator: "@", maxSplits: 1).map(String.init)
        guard let name = parts.first else { return [] }
        let version = parts.count > 1 ? parts[1] : nil
        return tables.flatMap { object, symbols in
            // A definition without a version serves every user; one with another version serves none.
            (symbols?.definitions(named: name, memory) ?? []).filter { $0.version == nil || version == nil || $0.version == version }.map {
                (object, symbols?.soname, $0)
            }
        }
    }

    private func address(of key: String, _ tables: Tables, _ reach: Set<String>) throws(Failure) -> RuntimeAddress {
        func unresolved(_ sentence: String) -> Failure {
            Failure("import-unresolved", sentence, at: key, remedy: "Restart the process with the fixed package.")
        }
        let found = definitions(of: key, tables)
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
