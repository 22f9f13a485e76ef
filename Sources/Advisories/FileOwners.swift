// Which package a path on disk belongs to, from dpkg's file lists, in one pass over their bytes.

/// Answers "who owns these paths?" for a fixed set of paths. Feed every `/var/lib/dpkg/info/NAME.list` once.
public struct FileOwners: Sendable {
    /// Wanted path, canonical -> the spellings it was asked for.
    private var wanted: [String: [String]] = [:]
    /// Hash of a canonical path's bytes -> that path. Tells most of the millions of lines apart without a string.
    private var wantedByHash: [UInt64: [String]] = [:]
    private let diversions: Diversions
    private var owners: [String: String] = [:]

    /// - Parameter paths: absolute paths as a process's maps show them.
    public init(of paths: some Sequence<String>, diversions: Diversions = Diversions([])) {
        self.diversions = diversions
        for path in paths {
            let canonical = Self.canonical(path)
            wanted[canonical, default: []].append(path)
            // A path that exists because another package was diverted away stands in that package's list under its
            // old name.
            for listed in [canonical, diversions.originals[canonical]].compactMap({ $0 }) {
                wantedByHash[Self.hash(Array(listed.utf8).span, from: 0, to: listed.utf8.count), default: []]
                    .append(listed)
            }
        }
    }

    /// Reads one list. `package` is the list's file name without `.list`: `libc6:amd64`.
    public mutating func read(list bytes: [UInt8], of package: String) {
        let span = bytes.span
        var start = 0
        while start < span.count {
            var end = start
            while end < span.count, span[end] != UInt8(ascii: "\n") { end += 1 }
            let from = Self.canonicalStart(span, from: start, to: end)
            if let candidates = wantedByHash[Self.hash(span, from: from, to: end)] {
                let line = String(decoding: bytes[from..<end], as: UTF8.self)
                if candidates.contains(line) { owns(package, line) }
            }
            start = end + 1
        }
    }

    /// The package, as in `read(list:of:)`, or nil when no list names the path: then it belongs to no package.
    public subscript(_ path: String) -> String? { owners[path] }

    private mutating func owns(_ package: String, _ listed: String) {
        let name = package.split(separator: ":").first.map(String.init) ?? package
        let path = diversions.place(of: listed, from: name)
        for spelling in wanted[path] ?? [] { owners[spelling] = package }
    }

    /// On a system with merged /usr, `/lib/x` and `/usr/lib/x` are one file and lists use either.
    static func canonical(_ path: String) -> String {
        let bytes = Array(path.utf8)
        let from = canonicalStart(bytes.span, from: 0, to: bytes.count)
        return String(decoding: bytes[from...], as: UTF8.self)
    }

    private static let usr = Array("/usr".utf8)
    private static let merged = ["/lib/", "/bin/", "/sbin/", "/lib32/", "/lib64/", "/libx32/"].map { Array($0.utf8) }

    private static func canonicalStart(_ span: Span<UInt8>, from: Int, to: Int) -> Int {
        guard has(usr, span, from, to) else { return from }
        let rest = from + usr.count
        for folder in merged where has(folder, span, rest, to) { return rest }
        return from
    }

    private static func has(_ prefix: [UInt8], _ span: Span<UInt8>, _ from: Int, _ to: Int) -> Bool {
        guard to - from >= prefix.count else { return false }
        for i in 0..<prefix.count where span[from + i] != prefix[i] { return false }
        return true
    }

    /// FNV-1a, 64 bits.
    private static func hash(_ span: Span<UInt8>, from: Int, to: Int) -> UInt64 {
        var hash: UInt64 = 0xcbf2_9ce4_8422_2325
        var i = from
        while i < to {
            hash = (hash ^ UInt64(span[i])) &* 0x100_0000_01b3
            i += 1
        }
        return hash
    }
}

/// dpkg-divert's table: a package's file moved aside for another package's file of the same name.
public struct Diversions: Sendable {
    private struct Diversion {
        let to: String
        /// The package whose file keeps the name; empty for a local diversion, where no package's file does.
        let by: String
    }
    private var table: [String: Diversion] = [:]
    /// Where a file was moved to -> the name it has in its package's list. Canonical paths.
    private(set) var originals: [String: String] = [:]

    /// The file /var/lib/dpkg/diversions: groups of three lines, from, to, package (`:` for a local one).
    public init(_ bytes: [UInt8]) {
        let lines = bytes.split(separator: UInt8(ascii: "\n")).map { String(decoding: $0, as: UTF8.self) }
        for i in stride(from: 0, to: lines.count - lines.count % 3, by: 3) {
            let from = FileOwners.canonical(lines[i])
            let to = FileOwners.canonical(lines[i + 1])
            table[from] = Diversion(to: to, by: lines[i + 2] == ":" ? "" : lines[i + 2])
            originals[to] = from
        }
    }

    /// Where the file that `package` lists as `path` really is.
    func place(of path: String, from package: String) -> String {
        guard let diversion = table[path], diversion.by != package else { return path }
        return diversion.to
    }
}
