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
            let fetched = (try archive.fetch(a.name, a.version), try archive.fetch(b.name, b.version))
            let work = try Unprivileged.folder()
            defer { try? FileManager.default.removeItem(atPath: work) }
            try unpack(fetched.0, work + "/old", in: work)
            try unpack(fetched.1, work + "/new", in: work)
            return LayoutEvidence(try SourceComparison.compare(old: work + "/old", new: work + "/new"))
        } catch let failure as Failure {
            return LayoutEvidence(absent: "source", because: failure)
        } catch {
            return LayoutEvidence(absent: "source", because: Failure("source-malformed", "\(error.localizedDescription).", at: a.name))
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
