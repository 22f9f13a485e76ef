// How much more memory a process may take, by each limit that the kernel would hold it to.

import CLinux
import ELF
import Glibc

/// What a limit leaves.
public enum Headroom: Equatable, Sendable {
    case unlimited
    case limited(left: Int, limit: Int)
    case couldNotTell
}

public struct MemoryHeadroom: Equatable, Sendable {
    /// RLIMIT_AS.
    public var addressSpace: Headroom
    /// RLIMIT_DATA.
    public var data: Headroom
    /// RLIMIT_MEMLOCK, of a process that seems to lock all that it maps; unlimited for others.
    public var locked: Headroom
    /// vm.max_map_count.
    public var mappings: Headroom
    /// The memory cgroup, its own or that of an ancestor, whichever leaves least; page cache that can be dropped counts as left.
    public var cgroup: Headroom
    /// The commit limit of a system that does not overcommit.
    public var commit: Headroom

    /// Reads the limits of `process`, whose memory map has `mappingCount` lines.
    public init(_ process: ProcessHandle, mappingCount: Int) throws(Failure) {
        let thread = try process.livingThread()
        let status = ProcFields(try process.text("task/\(thread)/status"))
        let limits = try process.text("task/\(thread)/limits")
        let size = status.bytes("VmSize"), lockedNow = status.bytes("VmLck")
        addressSpace = Self.limit(limits, "Max address space", used: size)
        data = Self.limit(limits, "Max data size", used: status.bytes("VmData"))
        // MCL_FUTURE itself cannot be seen; who has it has mostly locked what was there, too.
        let locksAll = (lockedNow ?? 0) > (size ?? 0) / 2
        let isFree = status.has(capability: 14, in: "CapEff") && process.isInOwnUserNamespace
        locked = locksAll && !isFree ? Self.limit(limits, "Max locked memory", used: lockedNow) : .unlimited
        let mappingsMax = KernelLimits.mappingsMax()
        mappings = .limited(left: mappingsMax &- mappingCount, limit: mappingsMax)
        cgroup = MemoryCgroup.headroom(of: (try? process.text("task/\(thread)/cgroup")) ?? "")
        if systemNumber("/proc/sys/vm/overcommit_memory") == 2, let text = systemText("/proc/meminfo") {
            let fields = ProcFields(text)
            if let limit = fields.bytes("CommitLimit"), let used = fields.bytes("Committed_AS") {
                commit = .limited(left: limit &- used, limit: limit)
            } else {
                commit = .couldNotTell
            }
        } else {
            commit = .unlimited
        }
    }

    /// `Max address space     4194304     unlimited     bytes`: the first number is what counts.
    static func limit(_ text: String, _ name: String, used: Int?) -> Headroom {
        for line in text.split(separator: "\n") where line.hasPrefix(name) {
            guard let word = line.dropFirst(name.count).split(separator: " ").first else { return .couldNotTell }
            if word == "unlimited" { return .unlimited }
            guard let limit = Int(word), let used else { return .couldNotTell }
            return .limited(left: limit &- used, limit: limit)
        }
        return .couldNotTell
    }
}

/// `Name: value` lines of /proc files.
struct ProcFields {
    private var values: [Substring: Substring] = [:]

    init(_ text: String) {
        for line in text.split(separator: "\n") {
            guard let colon = line.firstIndex(of: ":") else { continue }
            if values[line[..<colon]] == nil { values[line[..<colon]] = line[line.index(after: colon)...] }
        }
    }

    /// `1234 kB`.
    func bytes(_ name: Substring) -> Int? {
        guard let word = values[name]?.split(whereSeparator: { $0 == " " || $0 == "\t" }).first, let kilobytes = Int(word) else {
            return nil
        }
        return kilobytes.multipliedReportingOverflow(by: 1024).partialValue
    }

    func has(capability: Int, in name: Substring) -> Bool {
        guard let word = values[name]?.split(whereSeparator: { $0 == " " || $0 == "\t" }).first, let bits = UInt64(word, radix: 16) else {
            return false
        }
        return bits >> UInt64(capability) & 1 == 1
    }
}

/// The limits of memory cgroups, both versions.
enum MemoryCgroup {
    /// No deeper: the kernel's own limit is far above any real hierarchy, and below this.
    static let depthMax = 256

    struct Mount: Equatable, Sendable {
        var isUnified: Bool
        /// The part of the hierarchy that is mounted, and where.
        var root: String
        var point: String
    }

    /// Where cgroups are mounted for Fother itself; it does not change.
    private static let mounts = mounts(in: systemText("/proc/self/mountinfo") ?? "")

    static func headroom(of cgroups: String) -> Headroom {
        var result = Headroom.unlimited
        for (isUnified, path) in paths(in: cgroups) {
            // Outside of what this process may see.
            if path.contains("/..") { return .couldNotTell }
            for mount in mounts where mount.isUnified == isUnified {
                guard let start = folder(path, mount) else { return .couldNotTell }
                var folder = start
                for _ in 0..<depthMax {
                    if case .limited(let left, let limit) = room(folder, isUnified) {
                        if case .limited(let least, _) = result, least <= left {} else { result = .limited(left: left, limit: limit) }
                    }
                    guard folder.count > mount.point.count, let slash = folder.lastIndex(of: "/") else { break }
                    folder = String(folder[..<slash])
                }
                break
            }
        }
        return result
    }

    /// `0::/a/b` of version 2, `4:memory:/a/b` of version 1.
    static func paths(in text: String) -> [(isUnified: Bool, path: String)] {
        text.split(separator: "\n").compactMap { line in
            let fields = line.split(separator: ":", maxSplits: 2, omittingEmptySubsequences: false)
            guard fields.count == 3 else { return nil }
            if fields[0] == "0", fields[1].isEmpty { return (true, String(fields[2])) }
            return fields[1].split(separator: ",").contains("memory") ? (false, String(fields[2])) : nil
        }
    }

    /// `14 35 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory`
    static func mounts(in text: String) -> [Mount] {
        text.split(separator: "\n").compactMap { line in
            let words = line.split(separator: " ")
            guard let dash = words.firstIndex(of: "-"), words.count > dash + 3, dash > 4 else { return nil }
            let kind = words[dash + 1]
            guard kind == "cgroup2" || kind == "cgroup" && words[dash + 3].split(separator: ",").contains("memory") else { return nil }
            return Mount(isUnified: kind == "cgroup2", root: String(words[3]), point: String(words[4]))
        }
    }

    /// The folder of a cgroup under a mount; nil when it is not below what is mounted.
    static func folder(_ path: String, _ mount: Mount) -> String? {
        let root = mount.root == "/" ? "" : mount.root
        guard path.hasPrefix(root) else { return nil }
        let rest = path.dropFirst(root.count)
        guard rest.isEmpty || rest.hasPrefix("/") else { return nil }
        return rest == "/" || rest.isEmpty ? mount.point : mount.point + rest
    }

    private static func room(_ folder: String, _ isUnified: Bool) -> Headroom {
        guard let word = systemText(folder + (isUnified ? "/memory.max" : "/memory.limit_in_bytes")) else { return .unlimited }
        // `max`, or in version 1 a number near 2^63.
        guard let limit = Int(word.filter { $0 != "\n" }), limit < 1 << 60 else { return .unlimited }
        guard let used = systemNumber(folder + (isUnified ? "/memory.current" : "/memory.usage_in_bytes")) else { return .couldNotTell }
        let cache = systemText(folder + "/memory.stat").map { droppable(in: $0, isUnified) } ?? 0
        return .limited(left: limit &- used &+ cache, limit: limit)
    }

    /// Clean page cache: what the kernel drops before it says that memory is out.
    static func droppable(in stat: String, _ isUnified: Bool) -> Int {
        var values: [Substring: Int] = [:]
        for line in stat.split(separator: "\n") {
            let words = line.split(separator: " ")
            if words.count == 2 { values[words[0]] = Int(words[1]) }
        }
        let names: (add: [Substring], subtract: [Substring]) =
            isUnified
            ? (["inactive_file", "active_file"], ["file_dirty", "file_writeback"])
            : (["total_inactive_file", "total_active_file"], ["total_dirty", "total_writeback"])
        let sum = names.add.reduce(0) { $0 &+ (values[$1] ?? 0) } &- names.subtract.reduce(0) { $0 &+ (values[$1] ?? 0) }
        return max(0, sum)
    }
}

/// A small file of the system's, or nil.
func systemText(_ path: String) -> String? {
    guard let bytes = try? Descriptor(opening: path).readToEnd(limitBytes: 4 << 20) else { return nil }
    return String(decoding: bytes, as: UTF8.self)
}

func systemNumber(_ path: String) -> Int? {
    systemText(path).flatMap { text in Int(text.filter { $0 != "\n" }) }
}
