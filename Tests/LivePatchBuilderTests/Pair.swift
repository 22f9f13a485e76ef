// Two builds of one small library, made by gcc as a distribution would: linked with a build ID, then stripped. The
// fixed build is the same source with FIXED defined, or other sources.

import ELF
import Foundation
import LivePatch
import LivePatchBuilder
import ProcessControl
import Testing

/// A directory that lives as long as somebody needs what is in it.
final class Workshop: Sendable {
    let path: String

    init() throws {
        path = FileManager.default.temporaryDirectory.appendingPathComponent("fother-\(UUID().uuidString)").path
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
    }
    deinit { try? FileManager.default.removeItem(atPath: path) }

    func write(_ name: String, _ bytes: [UInt8]) throws -> String {
        let file = path + "/" + name
        try Data(bytes).write(to: URL(fileURLWithPath: file))
        return file
    }
    func write(_ name: String, _ text: String) throws -> String { try write(name, Array(text.utf8)) }
    func read(_ name: String) throws -> [UInt8] { try Array(Data(contentsOf: URL(fileURLWithPath: path + "/" + name))) }
}

/// How a library is compiled and linked.
struct Recipe: Sendable {
    var compiler = "gcc"
    var flags = ["-O2"]
    var link: [String] = []
    /// What makes the linked file what the tool sees; nothing keeps the symbol table.
    var strip = ["--strip-unneeded", "--remove-section=.comment", "--remove-section=.note"]
}

/// One linked library, before and after stripping.
struct LinkedBuild: Sendable {
    let workshop: Workshop
    /// File name of the stripped library inside the workshop.
    let file: String
    let full: [UInt8]
    let stripped: [UInt8]
    var path: String { workshop.path + "/" + file }

    /// Compiles each source on its own, in the order given, and links them in that order.
    init(_ workshop: Workshop, _ name: String, _ sources: [(name: String, text: String)], _ recipe: Recipe, defines: [String] = []) throws {
        self.workshop = workshop
        file = "lib\(name).so"
        let folder = "\(workshop.path)/\(name)"
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        var objects: [String] = []
        for (source, text) in sources {
            _ = try workshop.write("\(name)/\(source)", text)
            let object = source + ".o"
            _ = try ChildProcess.runChecked(
                [recipe.compiler, "-c", "-fPIC", "-w"] + recipe.flags + defines.map { "-D" + $0 } + [source, "-o", object],
                directory: folder)
            objects.append(object)
        }
        let whole = "\(name)/whole.so"
        _ = try ChildProcess.runChecked(
            [recipe.compiler, "-shared", "-Wl,--build-id"] + recipe.flags + objects + ["-o", "whole.so"] + recipe.link, directory: folder)
        full = try workshop.read(whole)
        _ = try ChildProcess.runChecked(["strip"] + recipe.strip + [whole, "-o", file], directory: workshop.path)
        stripped = try workshop.read(file)
    }
}

struct Pair: Sendable {
    let workshop: Workshop
    let old: LinkedBuild
    let new: LinkedBuild

    init(
        old: [(name: String, text: String)], new: [(name: String, text: String)], _ recipe: Recipe = Recipe(), newRecipe: Recipe? = nil,
        newDefines: [String] = []
    ) throws {
        workshop = try Workshop()
        self.old = try LinkedBuild(workshop, "old", old, recipe)
        self.new = try LinkedBuild(workshop, "new", new, newRecipe ?? recipe, defines: newDefines)
    }

    /// One source file; the fixed build defines FIXED.
    init(_ source: String, _ recipe: Recipe = Recipe()) throws {
        try self.init(sources: ["a.c": source], recipe)
    }

    /// Several source files, linked in alphabetical order; the fixed build defines FIXED.
    init(sources: [String: String], _ recipe: Recipe = Recipe()) throws {
        let files = sources.sorted { $0.key < $1.key }.map { (name: $0.key, text: $0.value) }
        try self.init(old: files, new: files, recipe, newDefines: ["FIXED"])
    }

    /// Two versions of one source file, where defining FIXED would not do (line numbers).
    init(old: String, new: String, _ recipe: Recipe = Recipe()) throws {
        try self.init(old: [("a.c", old)], new: [("a.c", new)], recipe)
    }

    func judge() throws -> Judgement {
        let result = try build(old: old.stripped, new: new.stripped, BuildContext(object: "libcase.so"))
        return try Judgement(result, newSymbols: ELFFile(new.full, name: "new").symbols)
    }
}

/// What the builder said, in names of the source.
struct Judgement: CustomStringConvertible, Sendable {
    enum Answer: String, Sendable { case pass, review, refuse, nothingToDo }

    let answer: Answer
    let codes: Set<String>
    let moved: Set<String>
    let hooked: Set<String>
    let result: BuildResult
    /// The patch file, where there is one.
    let patch: [UInt8]?

    init(_ result: BuildResult, newSymbols: [Symbol]) throws {
        self.result = result
        var nameAt: [UInt64: String] = [:]
        for s in newSymbols where s.isFunction && s.isDefined && nameAt[s.value.value].map({ $0 > s.name }) ?? true {
            nameAt[s.value.value] = s.name
        }
        func name(_ f: ReplacedFunction) -> String {
            guard f.name.hasPrefix("fn_"), let address = UInt64(f.name.dropFirst(3), radix: 16) else { return f.name }
            return nameAt[address] ?? f.name
        }
        // What the two stripped files say. That they never suffice by themselves is a rule of its own: `EvidenceTests`.
        let findings = result.manifest.findings.filter { $0.code != "layout-unproved" }
        switch result.outcome {
        case .nothingToDo: (answer, patch) = (.nothingToDo, nil)
        case .refused: (answer, patch) = (.refuse, nil)
        case .patch(let bytes): (answer, patch) = (findings.isEmpty ? .pass : .review, bytes)
        }
        codes = Set(findings.map(\.code))
        moved = Set(result.manifest.functions.map(name))
        hooked = Set(result.manifest.functions.filter(\.isHooked).map(name))
    }

    var description: String {
        "\(answer) moved \(moved.sorted()) hooked \(hooked.sorted())\n"
            + result.manifest.findings.map { "  \($0.verdict) \($0.key): \($0.sentence)\n" }.joined()
            + result.manifest.functions.map { "  \($0.name): \($0.why)\n" }.joined()
            + result.manifest.references.sorted { $0.key < $1.key }.map { "  \($0.value) \($0.key)\n" }.joined()
    }
}
