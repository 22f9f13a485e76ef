// Which packages dpkg has unpacked on a system, and at which version: the file /var/lib/dpkg/status.

/// One package of one architecture whose files are on disk.
public struct InstalledPackage: Sendable, Hashable {
    public let name: String
    public let architecture: String
    public let version: DebianVersion
    /// The source package it was built from; its version may differ from the binary's.
    public let source: String
    public let sourceVersion: DebianVersion

    /// `libc6:amd64`, the form that names it among several architectures.
    public var qualifiedName: String { "\(name):\(architecture)" }
}

/// The parsed status file.
public struct InstalledPackages: Sendable {
    private var byQualifiedName: [String: InstalledPackage] = [:]
    private var qualifiedNames: [String: [String]] = [:]

    public var count: Int { byQualifiedName.count }

    /// Stanzas that are incomplete, or whose package has no files on disk, are left out.
    public init(status bytes: [UInt8]) {
        var fields: [String: String] = [:]
        var start = 0
        while start < bytes.count {
            var end = start
            while end < bytes.count, bytes[end] != UInt8(ascii: "\n") { end += 1 }
            if end == start {
                add(fields)
                fields.removeAll(keepingCapacity: true)
            } else if let (key, value) = Self.field(bytes[start..<end]) {
                fields[key] = value
            }
            start = end + 1
        }
        add(fields)
    }

    /// By `name` or `name:architecture`, as the files in /var/lib/dpkg/info are called. Without an architecture the
    /// name must be unique.
    public subscript(_ name: String) -> InstalledPackage? {
        if let exact = byQualifiedName[name] { return exact }
        guard let all = qualifiedNames[name], all.count == 1 else { return nil }
        return byQualifiedName[all[0]]
    }

    private mutating func add(_ fields: [String: String]) {
        guard let name = fields["Package"], let architecture = fields["Architecture"],
            let version = fields["Version"].flatMap(DebianVersion.init), let status = fields["Status"],
            // "want flag state"; these two states have no files on disk.
            let state = status.split(separator: " ").last, state != "config-files", state != "not-installed"
        else { return }
        // `Source: name (version)`, or the package itself when absent.
        let words = (fields["Source"] ?? name).split(separator: " ")
        let sourceVersion = words.count > 1 ? DebianVersion(words[1].filter { $0 != "(" && $0 != ")" }) : nil
        let package = InstalledPackage(
            name: name, architecture: architecture, version: version,
            source: words.first.map { String($0) } ?? name, sourceVersion: sourceVersion ?? version)
        byQualifiedName[package.qualifiedName] = package
        qualifiedNames[name, default: []].append(package.qualifiedName)
    }

    /// Decodes the few fields that matter; the long ones (descriptions, file hashes) never become strings.
    private static func field(_ line: ArraySlice<UInt8>) -> (String, String)? {
        for key in ["Package", "Status", "Architecture", "Version", "Source"] {
            guard line.first == key.utf8.first, line.count > key.utf8.count + 1,
                line.starts(with: key.utf8), line[line.startIndex + key.utf8.count] == UInt8(ascii: ":")
            else { continue }
            let value = line.dropFirst(key.utf8.count + 1).drop { $0 == UInt8(ascii: " ") }
            return (key, String(decoding: value, as: UTF8.self))
        }
        return nil
    }
}
