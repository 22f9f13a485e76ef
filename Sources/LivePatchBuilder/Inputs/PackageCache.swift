// Fetches package versions from the distribution's archives with an apt state and cache of its own: nothing is installed,
// and the system's configuration and lists stay as they are.

import ELF
import Foundation
import ProcessControl

public struct PackageCache: Sendable {
    /// Package lists older than this are fetched again.
    static let listsMaxAge: TimeInterval = 3600

    let folder: String

    /// `folder` is made when it is needed.
    public init(folder: String) { self.folder = folder }

    private var options: [String] {
        [
            "-qq", "-o", "Dir::State::Lists=\(folder)/lists", "-o", "Dir::Cache=\(folder)/cache", "-o", "APT::Sandbox::User=root",
            "-o", "Acquire::Retries=2", "-o", "Acquire::Languages=none",
        ]
    }

    /// Path of the `.deb` of exactly this version. Failure: `version-not-found`, with what the archive has.
    func fetch(_ package: String, _ version: String) throws -> String {
        guard package.allSatisfy({ $0.isASCII && ($0.isLetter || $0.isNumber || "+-.:".contains($0)) }), !package.hasPrefix("-"),
            version.allSatisfy({ $0.isASCII && ($0.isLetter || $0.isNumber || "+-.:~".contains($0)) })
        else { throw Failure("input-not-found", "that is no package name and version.", at: "\(package)=\(version)") }
        let archives = folder + "/debs"
        for path in [archives, folder + "/lists/partial", folder + "/cache/archives/partial"] {
            try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true, attributes: [.posixPermissions: 0o755])
        }
        let escaped = version.replacingOccurrences(of: ":", with: "%3a")
        let name = package.split(separator: ":")[0]
        func known() -> String? {
            let files = (try? FileManager.default.contentsOfDirectory(atPath: archives)) ?? []
            return files.filter { $0.hasPrefix("\(name)_\(escaped)_") && $0.hasSuffix(".deb") }.sorted().first.map { archives + "/" + $0 }
        }
        if let path = known() { return path }
        let isFresh = listsAge.map { $0 < Self.listsMaxAge } ?? false
        if !isFresh { try update() }
        func download() throws -> ChildOutput {
            try ChildProcess.run(
                ["apt-get"] + options + ["download", "\(package)=\(version)"], directory: archives, timeout: .seconds(300))
        }
        var result = try download()
        if !result.status.isSuccess, isFresh {
            try update()
            result = try download()
        }
        if let path = known() { return path }
        let offered = (try? ChildProcess.run(["apt-cache"] + options.dropFirst() + ["madison", package]))?.outputText ?? ""
        let versions = offered.split(separator: "\n").compactMap {
            $0.split(separator: "|").dropFirst().first.map { $0.filter { $0 != " " } }
        }
        throw Failure(
            "version-not-found", "the archives do not hold this version.", at: "\(package)=\(version)",
            remedy: versions.isEmpty ? "They hold no such package." : "They hold \(Set(versions).sorted().joined(separator: ", ")).")
    }

    private var listsAge: TimeInterval? {
        guard let date = (try? FileManager.default.attributesOfItem(atPath: folder + "/lists/stamp"))?[.modificationDate] as? Date else {
            return nil
        }
        return Date().timeIntervalSince(date)
    }

    private func update() throws {
        _ = try ChildProcess.runChecked(["apt-get"] + options + ["update"], timeout: .seconds(300))
        try Data().write(to: URL(fileURLWithPath: folder + "/lists/stamp"))
    }
}
