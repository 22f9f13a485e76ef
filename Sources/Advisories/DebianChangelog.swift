// What a Debian changelog says happened between two versions: above all, which CVEs its authors name.

/// A parsed `changelog.Debian`, newest entry first as the file has it. deb-changelog(5) is the format.
public struct DebianChangelog: Sendable {
    /// Bytes beyond this are not read: a changelog of this size is not one.
    public static let bytesMax = 64 << 20

    /// One upload.
    public struct Entry: Sendable {
        public let source: String
        public let version: DebianVersion
        public let cves: [CVE]
    }

    public let entries: [Entry]

    /// Never fails: lines that are not in the format belong to no entry.
    public init(_ bytes: [UInt8]) {
        var entries: [Entry] = []
        var head: (source: String, version: DebianVersion)?
        var bodyStart = 0
        var lineStart = 0
        func close(at end: Int) {
            guard let head, bodyStart <= end else { return }
            entries.append(
                Entry(source: head.source, version: head.version, cves: CVE.named(in: bytes[bodyStart..<end])))
        }
        let count = min(bytes.count, Self.bytesMax)
        while lineStart < count {
            var lineEnd = lineStart
            while lineEnd < count, bytes[lineEnd] != UInt8(ascii: "\n") { lineEnd += 1 }
            // Only an entry's first line begins at the margin with a name.
            if bytes[lineStart] != UInt8(ascii: " "), let next = Self.heading(bytes[lineStart..<lineEnd]) {
                close(at: lineStart)
                head = next
                bodyStart = lineEnd
            }
            lineStart = lineEnd + 1
        }
        close(at: count)
        self.entries = entries
    }

    /// What the changelog names after `old` up to and including `new`.
    public func cves(after old: DebianVersion, upTo new: DebianVersion) -> Named {
        let between = entries.filter { old < $0.version && $0.version <= new }
        return Named(
            cves: Set(between.flatMap(\.cves)).sorted(),
            reachesBothVersions: has(old) && has(new))
    }

    /// CVEs named in a range of entries. Named is not fixed: an entry may also say that one does not apply.
    public struct Named: Sendable, Equatable {
        public let cves: [CVE]
        /// False when the file does not go back to the old version or up to the new one: then more may exist.
        public let reachesBothVersions: Bool
    }

    private func has(_ version: DebianVersion) -> Bool {
        // A rebuild without source changes (`+b1`) has no entry of its own in the source's changelog.
        let source = version.withoutRebuildSuffix
        return entries.contains { $0.version == version || $0.version == source }
    }

    /// `source (version) distribution; key=value`.
    private static func heading(_ line: ArraySlice<UInt8>) -> (source: String, version: DebianVersion)? {
        guard let open = line.firstIndex(of: UInt8(ascii: "(")),
            let close = line[open...].firstIndex(of: UInt8(ascii: ")")),
            line[close...].contains(UInt8(ascii: ";")), open > line.startIndex + 1, line[open - 1] == UInt8(ascii: " "),
            let version = DebianVersion(String(decoding: line[(open + 1)..<close], as: UTF8.self))
        else { return nil }
        let name = line[line.startIndex..<(open - 1)]
        guard !name.contains(UInt8(ascii: " ")) else { return nil }
        return (String(decoding: name, as: UTF8.self), version)
    }
}

extension DebianVersion {
    /// The version without the `+bN` that a rebuild of unchanged source adds.
    var withoutRebuildSuffix: DebianVersion {
        guard let plus = description.lastIndex(of: "+") else { return self }
        let suffix = description[plus...].dropFirst()
        guard suffix.first == "b", suffix.count > 1, suffix.dropFirst().allSatisfy(\.isNumber) else { return self }
        return DebianVersion(String(description[..<plus])) ?? self
    }
}
