// Source packages of the distribution, through a view of apt that is Fother's own: the host's archives and keys with source
// entries added, and lists, configuration and downloads in Fother's cache. The host's apt is read and never changed.

import ELF
import Foundation
import ProcessControl

/// Fetches `source=version` as apt verifies it. Failures: `source-not-listed`, `source-version-not-found`, `archive-unreachable`,
/// `input-not-found`, and those of tools.
public struct SourceArchive: Sendable {
    /// Source lists older than this are fetched again.
    static let listsMaxAge: TimeInterval = 3600

    let folder: String

    /// `cache`: Fother's cache folder; `apt-sources` in it is made when it is needed.
    public init(cache: String) { folder = cache + "/apt-sources" }

    private var stamp: String { folder + "/lists/stamp" }
    private var environment: [String] {
        ProcessInfo.processInfo.environment.filter { $0.key != "APT_CONFIG" }.map { "\($0.key)=\($0.value)" }
            + ["APT_CONFIG=\(folder)/apt.conf", "LC_ALL=C"]
    }

    private func apt(_ words: [String], in directory: String? = nil) throws -> ChildOutput {
        try ChildProcess.run(words, environment: environment, directory: directory, timeout: .seconds(600))
    }

    /// The folder that holds the `.dsc` of exactly this version and what it names, as the archive's signatures vouch for them.
    func fetch(_ source: String, _ version: String) throws -> String {
        guard Self.isName(source), Self.isVersion(version) else {
            throw Failure("input-not-found", "that is no source package and version.", at: "\(source)=\(version)")
        }
        let place = folder + "/packages/\(source)_\(version.replacingOccurrences(of: ":", with: "%3a"))"
        // Only what apt verified gets this name, so what has it need not be asked for again.
        if FileManager.default.fileExists(atPath: place) { return place }
        let isChanged = try prepare()
        let isFresh = !isChanged && (age.map { $0 < Self.listsMaxAge } ?? false)
        if !isFresh { try update() }
        let partial = folder + "/packages/.partial-\(ProcessID.own)-\(source)"
        try? FileManager.default.removeItem(atPath: partial)
        try make(partial)
        defer { try? FileManager.default.removeItem(atPath: partial) }
        func download() throws -> ChildOutput {
            try apt(["apt-get", "-qq", "source", "--only-source", "--download-only", "\(source)=\(version)"], in: partial)
        }
        var result = try download()
        if !result.status.isSuccess, isFresh {
            try update()
            result = try download()
        }
        let files = (try? FileManager.default.contentsOfDirectory(atPath: partial)) ?? []
        guard result.status.isSuccess, files.contains(where: { $0.hasSuffix(".dsc") }) else { throw absent(source, version, result) }
        // Another run may have been faster.
        try? FileManager.default.moveItem(atPath: partial, toPath: place)
        return place
    }

    /// Why a version was not to be had, as a person can act on it.
    private func absent(_ source: String, _ version: String, _ result: ChildOutput) -> Failure {
        let offered = versions(source)
        let place = "\(source)=\(version)"
        if offered.contains(version) {
            return Failure(
                "archive-unreachable", "its source is listed and could not be fetched: \(Self.complaint(result))", at: place,
                remedy: "Check the network, and whether the archive still has the file.")
        }
        return Failure(
            "source-version-not-found", "the archives do not hold the source of this version.", at: place,
            remedy: offered.isEmpty ? "They hold no such source package." : "They hold \(offered.sorted().joined(separator: ", ")).")
    }

    /// The first thing that apt complained about: later ones follow from it.
    private static func complaint(_ result: ChildOutput) -> String {
        let lines = result.errorText.split(separator: "\n")
        return (lines.first { $0.hasPrefix("E:") || $0.hasPrefix("W:") } ?? lines.first).map { String($0) } ?? "\(result.status)."
    }

    /// Versions of a source package that the lists name.
    func versions(_ source: String) -> Set<String> {
        guard Self.isName(source), let text = (try? apt(["apt-cache", "showsrc", "--only-source", source]))?.outputText else { return [] }
        return Set(text.split(separator: "\n").filter { $0.hasPrefix("Version: ") }.map { String($0.dropFirst("Version: ".count)) })
    }

    static func isName(_ text: String) -> Bool {
        !text.isEmpty && !text.hasPrefix("-") && text.allSatisfy { $0.isASCII && ($0.isLetter || $0.isNumber || "+-.".contains($0)) }
    }
    static func isVersion(_ text: String) -> Bool {
        !text.isEmpty && !text.hasPrefix("-") && text.allSatisfy { $0.isASCII && ($0.isLetter || $0.isNumber || "+-.:~".contains($0)) }
    }

    // MARK: The view

    private var age: TimeInterval? {
        ((try? FileManager.default.attributesOfItem(atPath: stamp))?[.modificationDate] as? Date).map { Date().timeIntervalSince($0) }
    }

    private func make(_ path: String) throws {
        do {
            try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true, attributes: [.posixPermissions: 0o755])
        } catch {
            throw Failure(
                "cache-unwritable", "the folder cannot be made: \(error.localizedDescription).", at: path,
                remedy: "Run as root, or set FOTHER_CACHE to a folder of yours.")
        }
    }

    private func update() throws {
        let result = try apt(["apt-get", "-qq", "update"])
        // apt-get ends with 0 although an archive was out of reach, and says so.
        guard result.status.isSuccess, !result.errorText.contains("Failed to fetch") else {
            throw Failure(
                "archive-unreachable", "the archives' lists of sources cannot be fetched: \(Self.complaint(result))", at: folder,
                remedy: "Check the network and the archive's proxy settings.")
        }
        try Data().write(to: URL(fileURLWithPath: stamp))
    }

    /// Writes the view's configuration from the host's. True when its archives are other ones than last time.
    private func prepare() throws -> Bool {
        for path in ["entries", "lists/partial", "cache/archives/partial", "packages"] { try make(folder + "/" + path) }
        let host = try ChildProcess.runChecked(["apt-config", "dump"]).outputText
        let places = try ChildProcess.runChecked(
            ["apt-config", "shell", "LIST", "Dir::Etc::sourcelist/f", "PARTS", "Dir::Etc::sourceparts/d"]
        ).outputText
        func place(_ name: String) -> String {
            for line in places.split(separator: "\n") where line.hasPrefix(name + "='") {
                return String(line.dropFirst(name.count + 2).dropLast())
            }
            return ""
        }
        let parts = place("PARTS")
        let names = ((try? FileManager.default.contentsOfDirectory(atPath: parts)) ?? []).sorted()
        var entries = ""
        if let text = try? String(contentsOfFile: place("LIST"), encoding: .utf8) { entries += AptEntries.sources(ofList: text) }
        for name in names where name.hasSuffix(".list") {
            entries += AptEntries.sources(ofList: (try? String(contentsOfFile: parts + name, encoding: .utf8)) ?? "")
        }
        var stanzas = ""
        for name in names where name.hasSuffix(".sources") {
            stanzas += AptEntries.sources(ofStanzas: (try? String(contentsOfFile: parts + name, encoding: .utf8)) ?? "")
        }
        guard !entries.isEmpty || !stanzas.isEmpty else {
            throw Failure(
                "source-not-listed", "the host's apt names no archive to take sources from.", at: parts,
                remedy: "Add one to /etc/apt/sources.list; a deb line is enough.")
        }
        let old = [(folder + "/entries/fother.list", entries), (folder + "/entries/fother.sources", stanzas)]
        var isChanged = false
        for (path, text) in old where (try? String(contentsOfFile: path, encoding: .utf8)) != text {
            try text.write(toFile: path, atomically: true, encoding: .utf8)
            isChanged = true
        }
        try AptEntries.configuration(host: host, folder: folder).write(toFile: folder + "/apt.conf", atomically: true, encoding: .utf8)
        return isChanged
    }
}

/// Turns the host's apt configuration into that of the view: pure text.
enum AptEntries {
    /// One-line entries (sources.list(5)), each as a source entry, with its options and keys; each once.
    static func sources(ofList text: String) -> String {
        var seen: Set<String> = [], result = ""
        for line in text.split(separator: "\n") {
            let words = line.split(separator: "#", maxSplits: 1, omittingEmptySubsequences: false)[0].split(whereSeparator: \.isWhitespace)
            guard words.count >= 3, words[0] == "deb" || words[0] == "deb-src" else { continue }
            let entry = "deb-src " + words.dropFirst().joined(separator: " ")
            if seen.insert(entry).inserted { result += entry + "\n" }
        }
        return result
    }

    /// Stanzas of the deb822 format, each as a source entry; those that are switched off are left out.
    static func sources(ofStanzas text: String) -> String {
        var result = ""
        for stanza in stanzas(text) {
            let isOff = stanza.contains { field($0, "enabled").map { ["no", "false", "0", "off"].contains($0.lowercased()) } ?? false }
            guard !isOff, stanza.contains(where: { field($0, "types") != nil }), stanza.contains(where: { field($0, "uris") != nil }) else {
                continue
            }
            result += stanza.map { field($0, "types") != nil ? "Types: deb-src" : $0 }.joined(separator: "\n") + "\n\n"
        }
        return result
    }

    private static func stanzas(_ text: String) -> [[String]] {
        var result: [[String]] = [[]]
        for line in text.split(separator: "\n", omittingEmptySubsequences: false) {
            if line.hasPrefix("#") { continue }
            if line.allSatisfy(\.isWhitespace) { result.append([]) } else { result[result.count - 1].append(String(line)) }
        }
        return result.filter { !$0.isEmpty }
    }

    private static func field(_ line: String, _ name: String) -> String? {
        guard let colon = line.firstIndex(of: ":"), line[..<colon].lowercased() == name else { return nil }
        return line[line.index(after: colon)...].trimmingCharacters(in: .whitespaces)
    }

    /// What the view keeps of the host's configuration: how archives are reached and whom they are trusted by. Everything else
    /// is left out, hooks above all: they act on the host's own apt.
    static func configuration(host: String, folder: String) -> String {
        let kept = host.split(separator: "\n").filter { line in
            (line.hasPrefix("Acquire::") && !line.hasPrefix("Acquire::IndexTargets")) || line.hasPrefix("APT::Architecture")
                || line.hasPrefix("Dir::Etc::trusted") || line.hasPrefix("Dir::Etc::netrc")
        }
        return kept.joined(separator: "\n") + """

            Dir::Etc::main "/dev/null";
            Dir::Etc::parts "/dev/null";
            Dir::Etc::sourcelist "/dev/null";
            Dir::Etc::sourceparts "\(folder)/entries";
            Dir::Etc::preferences "/dev/null";
            Dir::Etc::preferencesparts "/dev/null";
            Dir::State::lists "\(folder)/lists";
            Dir::Cache "\(folder)/cache";
            Acquire::Retries "2";
            Acquire::Languages "none";
            APT::Sandbox::User "root";
            APT::Get::AllowUnauthenticated "false";

            """
    }
}
