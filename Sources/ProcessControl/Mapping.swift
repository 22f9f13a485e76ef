// One line of /proc/PID/maps, and how the file is read. The text is hostile: paths are chosen by others.

import ELF

/// One mapping of a process's address space.
public struct Mapping: Hashable, Sendable {
    public struct Permissions: OptionSet, Hashable, Sendable, CustomStringConvertible {
        public let rawValue: UInt8
        public init(rawValue: UInt8) { self.rawValue = rawValue }
        public static let read = Permissions(rawValue: 1)
        public static let write = Permissions(rawValue: 2)
        public static let execute = Permissions(rawValue: 4)
        /// Set for MAP_SHARED: writes through /proc/PID/mem to such a mapping fail unless it is writable.
        public static let shared = Permissions(rawValue: 8)
        /// `r-xp`, as in the file.
        public var description: String {
            (contains(.read) ? "r" : "-") + (contains(.write) ? "w" : "-") + (contains(.execute) ? "x" : "-")
                + (contains(.shared) ? "s" : "p")
        }
    }

    /// A block device by its numbers.
    public struct Device: Hashable, Sendable {
        public var major: UInt32
        public var minor: UInt32
        public init(major: UInt32, minor: UInt32) {
            self.major = major
            self.minor = minor
        }
    }

    public var range: Range<RuntimeAddress>
    public var permissions: Permissions
    /// Where in the file `range` begins; 0 for anonymous memory.
    public var offset: FileOffset
    public var device: Device
    /// 0 for anonymous memory.
    public var inode: UInt64
    /// The file's path as the process's own root shows it, or the kernel's name in brackets (`[heap]`, `[stack]`,
    /// `[anon:…]`), or empty. A name, never an identity. Bytes that are not UTF-8 are replaced: to open the file take
    /// `ProcessHandle.pathOfFile(behind:)`.
    public var path: String
    /// The kernel appended ` (deleted)` to the path (and `path` lacks it): the file was removed or replaced. A file
    /// whose name really ends in ` (deleted)` looks the same.
    public var isDeleted: Bool

    public init(
        range: Range<RuntimeAddress>, permissions: Permissions, offset: FileOffset = FileOffset(0),
        device: Device = Device(major: 0, minor: 0), inode: UInt64 = 0, path: String = "", isDeleted: Bool = false
    ) {
        self.range = range
        self.permissions = permissions
        self.offset = offset
        self.device = device
        self.inode = inode
        self.path = path
        self.isDeleted = isDeleted
    }

    public var isFile: Bool { inode != 0 }
    public var byteCount: UInt64 { range.upperBound.value &- range.lowerBound.value }
}

extension [Mapping] {
    /// The mapping that holds `address`, by binary search: the array is in the order of addresses.
    public func mapping(at address: RuntimeAddress) -> Mapping? {
        var low = 0
        var high = count
        while low < high {
            let middle = (low + high) / 2
            if self[middle].range.upperBound <= address { low = middle + 1 } else { high = middle }
        }
        return low < count && self[low].range.contains(address) ? self[low] : nil
    }
}

enum MapsLimits {
    /// The kernel's own default limit is 65,530; administrators raise it for databases.
    static let mappingsMax = 1 << 20
}

/// Reads the text of /proc/PID/maps: mappings in the order of their addresses, not overlapping. Failure:
/// `maps-malformed`, with the line.
public func parseMaps(_ text: [UInt8], at place: String = "maps") throws(Failure) -> [Mapping] {
    var mappings: [Mapping] = []
    mappings.reserveCapacity(min(text.count / 80, MapsLimits.mappingsMax))
    var lineStart = 0
    var number = 1
    var pathCache = (bytes: ArraySlice<UInt8>(), path: "", deleted: false)
    while lineStart < text.count {
        var lineEnd = lineStart
        while lineEnd < text.count, text[lineEnd] != UInt8(ascii: "\n") { lineEnd += 1 }
        var scanner = TextScanner(text, lineStart..<lineEnd)
        guard var mapping = parseFields(&scanner) else {
            throw Failure("maps-malformed", "the line is not a mapping.", at: "\(place) line \(number)")
        }
        if let last = mappings.last, mapping.range.lowerBound < last.range.upperBound {
            throw Failure("maps-malformed", "the mapping is not above the one before.", at: "\(place) line \(number)")
        }
        if mappings.count == MapsLimits.mappingsMax {
            throw Failure("maps-malformed", "there are more than \(MapsLimits.mappingsMax) mappings.", at: place)
        }
        scanner.skipBlanks()
        let pathBytes = scanner.rest
        if !pathBytes.isEmpty {
            // Neighbouring lines mostly name the same file.
            if pathBytes != pathCache.bytes {
                let (path, deleted) = decodePath(pathBytes)
                pathCache = (pathBytes, path, deleted)
            }
            (mapping.path, mapping.isDeleted) = (pathCache.path, pathCache.deleted)
        }
        mappings.append(mapping)
        lineStart = lineEnd + 1
        number += 1
    }
    return mappings
}

/// `start-end perms offset major:minor inode`
private func parseFields(_ s: inout TextScanner) -> Mapping? {
    guard let start = s.hexadecimal(), s.skip(UInt8(ascii: "-")), let end = s.hexadecimal(), start < end,
        s.skip(UInt8(ascii: " "))
    else { return nil }
    var permissions: Mapping.Permissions = []
    guard let r = s.byte(), let w = s.byte(), let x = s.byte(), let p = s.byte(), s.skip(UInt8(ascii: " ")) else {
        return nil
    }
    switch r {
    case UInt8(ascii: "r"): permissions.insert(.read)
    case UInt8(ascii: "-"): break
    default: return nil
    }
    switch w {
    case UInt8(ascii: "w"): permissions.insert(.write)
    case UInt8(ascii: "-"): break
    default: return nil
    }
    switch x {
    case UInt8(ascii: "x"): permissions.insert(.execute)
    case UInt8(ascii: "-"): break
    default: return nil
    }
    switch p {
    case UInt8(ascii: "s"): permissions.insert(.shared)
    case UInt8(ascii: "p"): break
    default: return nil
    }
    guard let offset = s.hexadecimal(), s.skip(UInt8(ascii: " ")),
        let major = s.hexadecimal(), major <= UInt32.max, s.skip(UInt8(ascii: ":")),
        let minor = s.hexadecimal(), minor <= UInt32.max, s.skip(UInt8(ascii: " ")),
        let inode = s.decimal()
    else { return nil }
    return Mapping(
        range: RuntimeAddress(start)..<RuntimeAddress(end), permissions: permissions, offset: FileOffset(offset),
        device: Mapping.Device(major: UInt32(major), minor: UInt32(minor)), inode: inode)
}

/// The kernel writes a newline in a path as `\012` and leaves everything else alone.
private func decodePath(_ bytes: ArraySlice<UInt8>) -> (String, deleted: Bool) {
    let mark = Array(" (deleted)".utf8)
    let deleted = bytes.count > mark.count && bytes.suffix(mark.count).elementsEqual(mark)
    let bytes = deleted ? bytes.dropLast(mark.count) : bytes
    let escape = Array("\\012".utf8)
    guard bytes.contains(escape[0]) else { return (String(decoding: bytes, as: UTF8.self), deleted) }
    var out: [UInt8] = []
    var rest = bytes
    while let c = rest.first {
        if c == escape[0], rest.prefix(4).elementsEqual(escape) {
            out.append(UInt8(ascii: "\n"))
            rest = rest.dropFirst(4)
        } else {
            out.append(c)
            rest = rest.dropFirst()
        }
    }
    return (String(decoding: out, as: UTF8.self), deleted)
}
