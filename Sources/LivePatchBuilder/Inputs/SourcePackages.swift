// The sources of two package versions, fetched, unpacked and compared: evidence about live data that two stripped binaries
// cannot give.

import Advisories
import ELF
import Foundation
import ProcessControl

public enum SourcePackages {
    /// The evidence that the sources of both inputs give. Never fails: what keeps them from being had is the reason for none.
    public static func evidence(_ old: BuildInput, _ new: BuildInput, cache: PackageCache) -> LayoutEvidence {
        guard let a = old.source, let b = new.source else {
            return LayoutEvidence(absent: "source", because: "the inputs are not two versions of a package.")
        }
        do {
            guard a.name == b.name else {
                throw Failure("source-names-differ", "the packages are built from different sources.", at: "\(a.name), \(b.name)")
            }
            let archive = SourceArchive(cache: cache.folder)
            let work = try Unprivileged.folder()
            defer { try? FileManager.default.removeItem(atPath: work) }
            try unpack(try archive.fetch(b.name, b.version), work + "/new", in: work)
            var isReconstructed = false
            do { try unpack(try archive.fetch(a.name, a.version), work + "/old", in: work) } catch let failure as Failure {
                // Security updates replace each other in the archive.
                guard ["source-version-not-found", "archive-unreachable"].contains(failure.code) else { throw failure }
                try reconstruct(a.version, from: b.version, in: work)
                isReconstructed = true
            }
            return LayoutEvidence(try SourceComparison.compare(old: work + "/old", new: work + "/new"), isReconstructed: isReconstructed)
        } catch let failure as Failure {
            return LayoutEvidence(absent: "source", because: failure)
        } catch {
            return LayoutEvidence(absent: "source", because: Failure("source-malformed", "\(error.localizedDescription).", at: a.name))
        }
    }

    /// Makes `old` from `new` by taking off the patches that its series gained. Failure: `source-not-reconstructed`.
    private static func reconstruct(_ old: String, from new: String, in work: String) throws {
        func no(_ why: String) -> Failure {
            Failure("source-not-reconstructed", why, at: old, remedy: "Give the old sources with --old-source and --new-source.")
        }
        func text(_ path: String) throws -> String {
            String(decoding: try RegularFile.read("debian/" + path, in: work + "/new", limitBytes: PatchSeries.bytesMax), as: UTF8.self)
        }
        guard let before = DebianVersion(old), let after = DebianVersion(new),
            (try? text("source/format"))?.hasPrefix("3.0 (quilt)") ?? false
        else {
            throw no("the archives no longer hold it, and the new source package is of a format that does not tell what came since.")
        }
        let patches = try PatchSeries.names(text("patches/series")).map { name in
            let whole = try text("patches/" + name)
            return PatchSeries.Patch(name: name, header: String(whole[..<(whole.range(of: "\n--- ")?.lowerBound ?? whole.startIndex)]))
        }
        let gained = try PatchSeries.gained(patches, changelog: text("changelog"), old: before, new: after)
        _ = try ChildProcess.runChecked(Unprivileged.command(["cp", "-a", work + "/new", work + "/old"]), directory: work)
        for name in gained {
            let result = try ChildProcess.run(
                Unprivileged.command([
                    "patch", "--reverse", "--strip=1", "--fuzz=0", "--batch", "--silent", "--no-backup-if-mismatch", "--reject-file=-",
                    "--input=debian/patches/" + name,
                ]), directory: work + "/old")
            guard result.status.isSuccess else { throw no("the patch \(name) cannot be taken off the new sources.") }
        }
    }

    /// Unpacks the source package in `folder`, its patches applied, as nobody. Failures: `source-malformed`, those of tools.
    static func unpack(_ folder: String, _ destination: String, in work: String) throws {
        // The archive's cache may be root's own.
        let copy = destination + ".package"
        try FileManager.default.copyItem(atPath: folder, toPath: copy)
        defer { try? FileManager.default.removeItem(atPath: copy) }
        let names = try FileManager.default.contentsOfDirectory(atPath: copy)
        guard let description = names.sorted().first(where: { $0.hasSuffix(".dsc") }) else {
            throw Failure("source-malformed", "it has no .dsc.", at: folder)
        }
        // Whom the description is signed by is not asked here: apt has compared its hash with the archive's signed lists.
        let result = try ChildProcess.run(
            Unprivileged.command(["dpkg-source", "--no-check", "--extract", copy + "/" + description, destination]), directory: work,
            timeout: .seconds(600))
        guard result.status.isSuccess else {
            let last = result.errorText.split(separator: "\n").last.map(String.init) ?? "\(result.status)"
            throw Failure(
                "source-malformed", "it cannot be unpacked: \(last)", at: description, remedy: "dpkg-source comes with Debian's dpkg-dev.")
        }
    }
}
