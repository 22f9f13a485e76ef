// What stands behind a word on the command line: an ELF file, a Debian package file, a package version from the archive,
// an object of a running process. All become the same thing: ELF objects with where they come from.

import Advisories
import ELF
import Foundation
import ProcessControl

/// One ELF object of an input.
public struct InputObject: Sendable {
    /// Path inside the package (`usr/lib/…`), or the file's name.
    public var path: String
    public var bytes: [UInt8]

    public init(path: String, bytes: [UInt8]) {
        self.path = path
        self.bytes = bytes
    }
    public var name: String { path.split(separator: "/").last.map(String.init) ?? path }
}

public struct BuildInput: Sendable {
    /// More ELF objects than this in one package are refused.
    public static let objectsMax = 4096
    public static let changelogMax = 64 << 20

    public var objects: [InputObject]
    public var package: String?
    public var version: String?
    public var changelog: [UInt8] = []
    /// The source package that a package was built from.
    public var source: (name: String, version: String)?
    /// How it was come by: `file`, `package file`, `process`, `installed` (as its package says), or `archive` (apt checked the
    /// archive's signatures).
    public var origin = "file"

    public init(objects: [InputObject], package: String? = nil, version: String? = nil) {
        self.objects = objects
        self.package = package
        self.version = version
    }

    /// Reads what `word` names: a path to an ELF file or a `.deb`, `package=version`, or `pid:PID:OBJECT`.
    /// `only`: objects whose path or name this is. Failures: `input-not-found`, `object-not-found`, and those of reading.
    public static func read(_ word: String, only: String? = nil, cache: PackageCache) throws -> BuildInput {
        var input: BuildInput
        if word.hasPrefix("pid:") {
            input = try processObject(word)
            input.origin = "process"
        } else if FileManager.default.fileExists(atPath: word) {
            input =
                word.hasSuffix(".deb")
                ? try debianPackage(word)
                : BuildInput(
                    objects: [InputObject(path: (word as NSString).lastPathComponent, bytes: try RegularFile.read(word))])
        } else if let equals = word.firstIndex(of: "="), equals != word.startIndex {
            input = try packageVersion(String(word[..<equals]), String(word[word.index(after: equals)...]), cache)
        } else {
            throw Failure(
                "input-not-found", "there is no such file.", at: word,
                remedy: "Give an ELF file, a .deb, package=version, or pid:PID:OBJECT.")
        }
        if word.hasSuffix(".deb"), input.origin == "file" { input.origin = "package file" }
        if let only, !word.hasPrefix("pid:"), input.package != nil {
            input.objects = input.objects.filter { $0.path == only || "/" + $0.path == only || $0.name == only }
            guard !input.objects.isEmpty else {
                throw Failure(
                    "object-not-found", "it holds no ELF object \(only).", at: word, remedy: "dpkg-deb -c lists what a package holds.")
            }
        }
        return input
    }

    /// The objects of two inputs that are the same object: by path, else by name without version digits; two single
    /// objects always belong together.
    public static func pairs(_ old: BuildInput, _ new: BuildInput) -> [(old: InputObject, new: InputObject)] {
        if old.objects.count == 1, new.objects.count == 1 { return [(old.objects[0], new.objects[0])] }
        var byPath: [String: InputObject] = [:], byStem: [String: [InputObject]] = [:]
        for o in new.objects {
            byPath[o.path] = o
            byStem[stem(o.path), default: []].append(o)
            if old.objects.count == 1 { byStem[stem(o.name), default: []].append(o) }
        }
        return old.objects.compactMap { o in
            if let n = byPath[o.path] { return (o, n) }
            let candidates = byStem[stem(o.path)] ?? byStem[stem(o.name)] ?? []
            return candidates.count == 1 ? (o, candidates[0]) : nil
        }
    }

    /// `usr/lib/libpng16.so.16.39.0` and `…/libpng16.so.16.40.0` have one stem.
    private static func stem(_ path: String) -> String {
        guard let so = path.range(of: ".so", options: .backwards) else { return path }
        return String(path[..<so.upperBound])
    }

    // MARK: Sources

    private static func debianPackage(_ path: String) throws -> BuildInput {
        let fields = try ChildProcess.runChecked(["dpkg-deb", "--show", "--showformat=${Package}\n${Version}\n" + sourceFields, path])
            .outputText
            .split(separator: "\n").map(String.init)
        guard fields.count == 4 else { throw Failure("package-malformed", "it names no package and version.", at: path) }
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("fother-deb-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true, attributes: [.posixPermissions: 0o700])
        defer { try? FileManager.default.removeItem(at: folder) }
        _ = try ChildProcess.runChecked(["dpkg-deb", "--extract", path, folder.path])
        guard let walk = FileManager.default.enumerator(atPath: folder.path) else {
            throw Failure("package-malformed", "it cannot be unpacked.", at: path)
        }
        let paths = walk.compactMap { $0 as? String }.sorted()
        var input = try collect(paths, in: folder.path, package: fields[0], version: fields[1])
        input.source = (fields[2], fields[3])
        return input
    }

    private static let sourceFields = "${source:Package}\n${source:Version}\n"

    /// The ELF objects and the changelog among `paths`, relative to `root`.
    private static func collect(_ paths: [String], in root: String, package: String, version: String) throws -> BuildInput {
        var input = BuildInput(objects: [], package: package, version: version)
        for path in paths {
            let full = root + "/" + path
            let attributes = try? FileManager.default.attributesOfItem(atPath: full)
            guard attributes?[.type] as? FileAttributeType == .typeRegular else { continue }
            if path.hasPrefix("usr/share/doc/"),
                path.hasSuffix("/changelog.Debian.gz") || path.hasSuffix("/changelog.gz") && input.changelog.isEmpty
            {
                let text = try? ChildProcess.runChecked(["gzip", "-dc", full], limitBytes: changelogMax).output
                if path.hasSuffix("/changelog.Debian.gz") || input.changelog.isEmpty { input.changelog = text ?? [] }
                continue
            }
            guard try RegularFile.prefix(full, count: 4) == [0x7f, 0x45, 0x4c, 0x46] else { continue }
            guard input.objects.count < objectsMax else {
                throw Failure("limit-exceeded", "more than \(objectsMax) ELF objects.", at: package)
            }
            input.objects.append(InputObject(path: path, bytes: try RegularFile.read(full)))
        }
        guard !input.objects.isEmpty else {
            throw Failure(
                "object-not-found", "the package holds no ELF object.", at: "\(package) \(version)",
                remedy: "Its programs may be scripts, or lie in another binary package.")
        }
        return input
    }

    /// What is installed when it is this version, else from the archive.
    private static func packageVersion(_ name: String, _ version: String, _ cache: PackageCache) throws -> BuildInput {
        let installed = try? ChildProcess.run(["dpkg-query", "--show", "--showformat=${Version}\n", name])
        if let installed, installed.status.isSuccess, installed.outputText.split(separator: "\n").contains(Substring(version)),
            // Files that were altered since they were installed do not count as the package.
            let verified = try? ChildProcess.run(["dpkg", "--verify", name]), verified.status.isSuccess,
            !verified.outputText.split(separator: "\n").contains(where: { $0.contains("5") && !$0.contains(" c ") })
        {
            let list = try ChildProcess.runChecked(["dpkg-query", "--listfiles", name]).outputText
            var input = try collect(list.split(separator: "\n").map { String($0.dropFirst()) }, in: "", package: name, version: version)
            let source = try ChildProcess.runChecked(["dpkg-query", "--show", "--showformat=" + sourceFields, name]).outputText
                .split(separator: "\n").map(String.init)
            if source.count >= 2 { input.source = (source[0], source[1]) }
            input.origin = "installed"
            return input
        }
        var input = try debianPackage(try cache.fetch(name, version))
        input.origin = "archive"
        return input
    }

    /// `pid:PID:OBJECT`: the file that is mapped, whatever its path holds by now.
    private static func processObject(_ word: String) throws -> BuildInput {
        let parts = word.split(separator: ":", maxSplits: 2).map(String.init)
        guard parts.count == 3, let id = Int32(parts[1]) else {
            throw Failure("input-not-found", "it is not of the form pid:PID:OBJECT.", at: word, remedy: "For example pid:812:libssl.so.3")
        }
        let handle = try ProcessHandle(ProcessID(id)), memory = try handle.memory()
        for mapping in try handle.mappings() where mapping.isFile && mapping.offset.value == 0 {
            let name = mapping.path.split(separator: "/").last.map(String.init) ?? ""
            guard mapping.path == parts[2] || name == parts[2] || name.hasPrefix(parts[2] + ".") else { continue }
            guard let image = try? MemoryImage(memory, at: mapping.range.lowerBound) else { continue }
            let bytes = try RegularFile.read(handle.pathOfFile(behind: mapping))
            // The file is what was mapped; memory says whether it is the build that runs.
            guard let id = try ELFFile(bytes, name: mapping.path).buildID, id == image.buildID else {
                throw Failure("build-id-mismatch", "the mapped file is not the build that is in memory.", at: word)
            }
            return BuildInput(objects: [InputObject(path: String(mapping.path.drop { $0 == "/" }), bytes: bytes)])
        }
        throw Failure(
            "object-not-found", "the process has no such object mapped.", at: word, remedy: "fother ps --pid \(id) lists what it has.")
    }
}

extension BuildInput {
    /// CVE ids that the new package's changelog names between the two versions, and whether it reaches back to the old one:
    /// where it does not, more may have been fixed than it names. Nil where there is no changelog.
    public static func cves(_ old: BuildInput, _ new: BuildInput) -> (named: [String], isComplete: Bool)? {
        guard let a = old.version.flatMap(DebianVersion.init), let b = new.version.flatMap(DebianVersion.init), !new.changelog.isEmpty
        else {
            return nil
        }
        let named = DebianChangelog(new.changelog).cves(after: a, upTo: b)
        return (named.cves.map(\.description), named.reachesBothVersions)
    }
}
