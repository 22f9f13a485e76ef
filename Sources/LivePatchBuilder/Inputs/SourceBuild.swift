// Builds a Debian source package twice by its own rules, without and with one fix, in a throw-away folder, as nobody and without
// network: one CVE for the build that is installed.

import Advisories
import ELF
import Foundation
import LivePatch
import ProcessControl

public struct SourceBuild: Sendable {
    /// What makes the two sides: patches that are taken off the sources give the unfixed one, patches that are put on it the fixed
    /// one. Where none is put on, the sources as they are are the fixed side.
    public struct Change: Sendable {
        /// Patch files, or names in debian/patches, in the order of the series: the last comes off first.
        public var reverted: [String]
        /// Patch files, in the order in which they are put on.
        public var applied: [String]

        public init(reverting reverted: [String], applying applied: [String]) {
            self.reverted = reverted
            self.applied = applied
        }
    }

    /// One object of the package: as it is installed, and as it was built without and with the fix.
    public struct Object: Sendable {
        public var installed: InputObject
        public var unfixed: [UInt8]
        public var fixed: [UInt8]
        /// The unfixed build is a build of one's own, and nothing that is installed is like it.
        public var isOwn: Bool
    }

    public var package: BuildInput
    public var objects: [Object]
    public var evidence: LayoutEvidence
    /// CVE ids that the patches name, in their text or as files.
    public var cves: [String]
    /// Where the objects of both builds are kept: `unfixed/NAME`, `fixed/NAME`.
    public var kept: String

    /// Lines of a failed step's output that are quoted.
    static let tailLines = 15
    static let timeout: Duration = .seconds(3 * 3600)

    /// Fetches, builds and pairs. `word` is `package=version`; `progress` is told each step. Failures: `patch-does-not-apply`,
    /// `build-needs`, `build-failed`, `object-not-built`, and those of fetching.
    public static func run(
        _ word: String, _ change: Change, object: String?, installingDependencies: Bool, cache: PackageCache, progress: (String) -> Void
    ) throws -> SourceBuild {
        progress("reading \(word)")
        let package = try BuildInput.read(word, only: object, cache: cache)
        guard let source = package.source else {
            throw Failure("input-not-found", "it names no package of the distribution.", at: word, remedy: "Give package=version.")
        }
        progress("fetching the source of \(source.name) \(source.version)")
        let folder = try SourceArchive(cache: cache.folder).fetch(source.name, source.version)
        let work = try Unprivileged.folder()
        defer { try? FileManager.default.removeItem(atPath: work) }
        try SourcePackages.unpack(folder, work + "/base", in: work)
        let patch = try changed(work, change)
        let evidence = LayoutEvidence(try SourceComparison.compare(old: work + "/unfixed", new: work + "/fixed"))

        let key = try key(folder, patch, change)
        let kept = cache.folder + "/builds/" + key
        if !FileManager.default.fileExists(atPath: kept + "/fixed") {
            try dependencies(work + "/base", source.name, installing: installingDependencies, progress)
            for side in ["unfixed", "fixed"] {
                progress("building \(source.name) \(source.version), \(side)")
                try build(side, in: work, name: source.name, wanted: package.objects.map(\.name))
            }
            try keep(work, source.name, wanted: package.objects.map(\.name), in: kept)
        }
        var objects: [Object] = []
        let isOwn = !change.reverted.isEmpty
        for installed in package.objects {
            guard let a = try? RegularFile.read(kept + "/unfixed/" + installed.name),
                let b = try? RegularFile.read(kept + "/fixed/" + installed.name)
            else {
                continue
            }
            objects.append(Object(installed: installed, unfixed: a, fixed: b, isOwn: isOwn))
        }
        guard !objects.isEmpty else {
            throw Failure(
                "object-not-built", "the build made no object that the package has.", at: word,
                remedy: "The package has \(package.objects.map(\.name).joined(separator: ", ")).")
        }
        let files = (change.reverted + change.applied).map { ($0 as NSString).lastPathComponent }
        let named = Set(CVE.named(in: patch + Array(files.joined(separator: "\n").utf8)).map(\.description)).sorted()
        return SourceBuild(package: package, objects: objects, evidence: evidence, cves: named, kept: kept)
    }

    // MARK: Steps

    /// Makes `unfixed` and `fixed` beside `base`, and returns the patches' bytes.
    private static func changed(_ work: String, _ change: Change) throws -> [UInt8] {
        func copy(_ from: String, _ to: String) throws {
            _ = try ChildProcess.runChecked(Unprivileged.command(["cp", "-a", work + "/" + from, work + "/" + to]), directory: work)
        }
        var all: [UInt8] = []
        try copy("base", "unfixed")
        for path in change.reverted.reversed() { all += try put(path, on: "unfixed", in: work, isReverse: true) }
        try copy(change.applied.isEmpty ? "base" : "unfixed", "fixed")
        for path in change.applied { all += try put(path, on: "fixed", in: work, isReverse: false) }
        return all
    }

    /// Puts one patch on a tree, or takes it off, and returns its bytes. Failure: `patch-does-not-apply`.
    private static func put(_ path: String, on side: String, in work: String, isReverse: Bool) throws -> [UInt8] {
        let bytes: [UInt8]
        if isReverse, !FileManager.default.fileExists(atPath: path), !path.contains("..") {
            bytes = try RegularFile.read("debian/patches/" + path, in: work + "/base", limitBytes: PatchSeries.bytesMax)
        } else {
            bytes = try RegularFile.read(path, limitBytes: PatchSeries.bytesMax)
        }
        let file = work + "/change.patch"
        func run(_ patch: [UInt8], _ options: [String]) throws -> ChildOutput {
            try Data(patch).write(to: URL(fileURLWithPath: file))
            return try ChildProcess.run(
                Unprivileged.command(
                    [
                        "patch", "--strip=1", "--fuzz=0", "--batch", "--silent", "--no-backup-if-mismatch", "--reject-file=-",
                        "--input=" + file,
                    ] + (isReverse ? ["--reverse"] : ["--forward"]) + options), directory: work + "/" + side)
        }
        // Later fixes pile up on the same tests and notes: there, and only there, an older one need not come off.
        let comesOff = try !isReverse || run(bytes, ["--dry-run"]).status.isSuccess
        let result = try run(comesOff ? bytes : PatchText.ofCode(bytes), [])
        guard result.status.isSuccess else {
            throw Failure(
                "patch-does-not-apply", "the patch cannot be \(isReverse ? "taken off" : "applied"): \(tail(result.output, lines: 3))",
                at: path,
                remedy: "It must fit this version of the sources exactly, with paths for patch -p1.")
        }
        return bytes
    }

    /// What the build needs and the host lacks, or its installation.
    private static func dependencies(_ tree: String, _ name: String, installing: Bool, _ progress: (String) -> Void) throws {
        let profiles = "nocheck,nodoc"
        let check = ["dpkg-checkbuilddeps", "-B", "-P", profiles]
        var result = try ChildProcess.run(check, environment: environment(tree), directory: tree)
        if !result.status.isSuccess, installing {
            progress("installing what \(name) is built with")
            let install = try ChildProcess.run(
                ["apt-get", "-qq", "-y", "--no-install-recommends", "--arch-only", "-P", profiles, "build-dep", tree],
                timeout: .seconds(1800))
            guard install.status.isSuccess else {
                throw Failure("build-needs", "what it is built with cannot be installed: \(tail(install.errors, lines: 3))", at: name)
            }
            result = try ChildProcess.run(check, environment: environment(tree), directory: tree)
        }
        guard result.status.isSuccess else {
            let line = result.errorText.split(separator: "\n").last.map(String.init) ?? ""
            throw Failure(
                "build-needs", "the host lacks what it is built with: \(line.components(separatedBy: "dependencies: ").last ?? line).",
                at: name,
                remedy: "--install-build-deps installs it, as root and for good.")
        }
    }

    /// Both sides are built in one folder, one after the other: paths are then no difference between them. Some rules do nothing
    /// for `build-arch`, and all of it when they install into the package's folder.
    private static func build(_ side: String, in work: String, name: String, wanted: [String]) throws {
        let place = work + "/build"
        _ = try ChildProcess.runChecked(Unprivileged.command(["mv", work + "/" + side, place]), directory: work)
        for target in ["build-arch", "install"] {
            let result = try ChildProcess.run(
                Unprivileged.command(["dpkg-buildpackage", "--rules-target=\(target)", "-us", "-uc", "-d", "-nc"]),
                environment: environment(work), directory: place, timeout: timeout, limitBytes: 256 << 20)
            guard result.status.isSuccess else {
                throw Failure(
                    "build-failed",
                    "building the \(side) side ended with \(result.status):\n\(tail(result.output + result.errors, lines: tailLines))",
                    at: name,
                    remedy: "The package's own rules failed; dpkg-buildpackage in the unpacked source shows all of it. Development "
                        + "packages that this host has and the build does not ask for can lead it astray.")
            }
            let tree = try SourceTree(root: place)
            if wanted.contains(where: { object($0, in: tree) != nil }) { break }
        }
        _ = try ChildProcess.runChecked(Unprivileged.command(["mv", place, work + "/" + side]), directory: work)
    }

    /// The bytes of a built object by its name, from where the path is shortest.
    private static func object(_ name: String, in tree: SourceTree) -> [UInt8]? {
        for path in tree.files.filter({ $0 == name || $0.hasSuffix("/" + name) }).sorted(by: { ($0.count, $0) < ($1.count, $1) }) {
            if let bytes = try? RegularFile.read(path, in: tree.root), let file = try? ELFFile(bytes, name: path), file.buildID != nil {
                return bytes
            }
        }
        return nil
    }

    private static func environment(_ home: String) -> [String] {
        let processors = ProcessInfo.processInfo.activeProcessorCount
        return [
            // Where ccache is installed, the second side takes what its fix leaves alone from the first: same compiler, same
            // folder, same preprocessed text. Its store is in the throw-away folder.
            "PATH=/usr/lib/ccache:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "CCACHE_DIR=\(home)/ccache", "HOME=\(home)",
            "TMPDIR=\(home)", "LC_ALL=C.UTF-8", "TZ=UTC",
            "DEB_BUILD_OPTIONS=nocheck nodoc nostrip noautodbgsym parallel=\(processors)", "DEB_BUILD_PROFILES=nocheck nodoc",
        ]
    }

    /// Copies the objects that are wanted out of both trees, and only when both have been built.
    private static func keep(_ work: String, _ name: String, wanted: [String], in kept: String) throws {
        let partial = kept + ".partial-\(ProcessID.own)"
        try? FileManager.default.removeItem(atPath: partial)
        for side in ["unfixed", "fixed"] {
            try FileManager.default.createDirectory(atPath: partial + "/" + side, withIntermediateDirectories: true)
            let tree = try SourceTree(root: work + "/" + side)
            for name in wanted {
                if let bytes = object(name, in: tree) { try Data(bytes).write(to: URL(fileURLWithPath: partial + "/\(side)/\(name)")) }
            }
        }
        let made = (try? FileManager.default.contentsOfDirectory(atPath: partial + "/fixed")) ?? []
        guard !made.isEmpty else {
            try? FileManager.default.removeItem(atPath: partial)
            throw Failure(
                "object-not-built", "the build made no object that the package has.", at: name,
                remedy: "The package has \(wanted.joined(separator: ", ")).")
        }
        do { try FileManager.default.moveItem(atPath: partial, toPath: kept) } catch {
            guard FileManager.default.fileExists(atPath: kept) else { throw error }
            try? FileManager.default.removeItem(atPath: partial)
        }
    }

    /// Same source, change and compiler: same build.
    private static func key(_ folder: String, _ patch: [UInt8], _ change: Change) throws -> String {
        var bytes = patch
        for name in try FileManager.default.contentsOfDirectory(atPath: folder).sorted() where name.hasSuffix(".dsc") {
            bytes += try RegularFile.read(folder + "/" + name)
        }
        bytes += [UInt8(truncatingIfNeeded: change.reverted.count), UInt8(truncatingIfNeeded: change.applied.count)]
        bytes += (try? ChildProcess.run(["gcc", "--version"]).output) ?? []
        bytes += Array(builderVersion.utf8)
        return hexDigits(sha256(bytes[...]))
    }

    private static func tail(_ bytes: [UInt8], lines: Int) -> String {
        String(decoding: bytes.suffix(64 << 10), as: UTF8.self).split(separator: "\n").suffix(lines).joined(separator: "\n")
    }
}

extension SourceBuild.Object {
    /// More differing functions than this are counted.
    private static let namedMax = 5

    /// The two builds that a patch is derived from. Where a fix was taken off the sources, the unfixed build is itself what the
    /// patch is for. Otherwise that is the installed build: with symbols and debug information where the unfixed
    /// build is the installed one byte for byte, stripped and with the installed one itself where it is only equal. Failure:
    /// `build-not-reproduced`.
    public func comparable() throws -> (old: [UInt8], new: [UInt8]) {
        if isOwn { return (unfixed, fixed) }
        let stripped = try SourceBuild.stripped(unfixed)
        switch try correspondence(installed: installed.bytes, built: stripped, name: installed.name) {
        case .identical: return (unfixed, fixed)
        case .equal: return (installed.bytes, try SourceBuild.stripped(fixed))
        case .differs(let names):
            let more = names.count > Self.namedMax ? " and \(names.count - Self.namedMax) more" : ""
            throw Failure(
                "build-not-reproduced",
                "built from its source without the fix, it is not the installed build: \(names.prefix(Self.namedMax).joined(separator: ", "))\(more) differ.",
                at: installed.path, remedy: "The compiler or a library that it is built with is another one than the distribution's then.")
        }
    }
}

extension SourceBuild {
    /// As the distribution strips what it ships.
    static func stripped(_ bytes: [UInt8]) throws -> [UInt8] {
        let work = try Unprivileged.folder()
        defer { try? FileManager.default.removeItem(atPath: work) }
        try Data(bytes).write(to: URL(fileURLWithPath: work + "/whole"))
        _ = try ChildProcess.runChecked(
            Unprivileged.command([
                "strip", "--remove-section=.comment", "--remove-section=.note", "--strip-unneeded", "-o", work + "/stripped",
                work + "/whole",
            ]), directory: work)
        return try RegularFile.read("stripped", in: work)
    }
}

/// How a build of one's own stands to the one that is installed.
public enum Correspondence: Sendable, Equatable {
    /// Same build ID.
    case identical
    /// Other bytes somewhere, and every function and all data the same after normalisation.
    case equal
    /// Functions, or other things, that differ.
    case differs([String])
}

/// Compares the build that is installed with one made from its source. Failures: those of reading.
public func correspondence(installed: [UInt8], built: [UInt8], name: String) throws(Failure) -> Correspondence {
    let a = try ELFFile(installed, name: name + " (installed)"), b = try ELFFile(built, name: name + " (built)")
    if let id = a.buildID, id == b.buildID { return .identical }
    let c = Comparison(try CodeImage(a), try CodeImage(b))
    var differing: [String] = []
    for f in c.new.functions {
        switch c.relation[f.index] {
        case .same: continue
        case .linesOnly, .changed, .added: differing.append(c.new.name(f.index))
        }
    }
    for f in c.old.functions where c.match.newOf[f.index] == nil { differing.append(c.old.name(f.index)) }
    differing += DataComparison.findings(c, fresh: [:]).map(\.function)
    return differing.isEmpty ? .equal : .differs(differing)
}
