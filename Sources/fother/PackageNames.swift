// Which package and version a loaded object is, in the process's own root. A version is told only when the file at the
// object's path is the build that is in memory; otherwise the file was replaced, and which version runs is not known.

import Advisories
import ELF
import Foundation
import LivePatchApplier
import ProcessControl

enum PackageAnswer: Equatable {
    case version(package: String, version: String)
    /// The file at the path is another build.
    case replaced(package: String?, version: String?)
    /// The file is gone.
    case deleted
    /// The file is the build in memory and belongs to no package.
    case noPackage
    case couldNotTell
}

/// Answers for many objects; files and package lists are read once for each root.
struct PackageNames {
    /// Containers beyond this many are not looked into.
    static let rootsMax = 256
    static let listMax = 64 << 20
    static let headMax = 64 << 10

    private struct Key: Hashable {
        var root: String
        var path: String
    }
    private struct Root {
        var processes: [ProcessID] = []
        var paths: Set<String> = []
        var owners: [String: (package: String, version: String)] = [:]
    }

    private var rootOf: [ProcessID: String] = [:]
    private var roots: [String: Root] = [:]
    private var fileBuild: [Key: BuildID?] = [:]
    private var fileExists: Set<Key> = []

    init(_ views: [ProcessView]) {
        for view in views where !view.objects.isEmpty {
            let id = Self.rootID(view.id)
            rootOf[view.id] = id
            roots[id, default: Root()].processes.append(view.id)
            for o in view.objects { roots[id]?.paths.insert(o.path) }
        }
        for id in roots.keys.sorted().prefix(Self.rootsMax) { readRoot(id) }
    }

    func answer(_ object: LoadedObject, in process: ProcessID) -> PackageAnswer {
        guard let root = rootOf[process], let known = roots[root] else { return .couldNotTell }
        let key = Key(root: root, path: object.path)
        guard let build = fileBuild[key] else { return fileExists.contains(key) ? .couldNotTell : .deleted }
        let owner = known.owners[object.path]
        guard let build, build == object.buildID, !object.isDeleted || build == object.buildID else {
            return .replaced(package: owner?.package, version: owner?.version)
        }
        return owner.map { .version(package: $0.package, version: $0.version) } ?? .noPackage
    }

    /// Processes of one mount namespace and root directory see the same files.
    private static func rootID(_ id: ProcessID) -> String {
        func link(_ name: String) -> String {
            (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/\(id)/\(name)")) ?? "?\(id)"
        }
        return link("ns/mnt") + " " + link("root")
    }

    private mutating func readRoot(_ id: String) {
        guard var root = roots[id], let process = root.processes.first else { return }
        let prefix = "/proc/\(process)/root"
        for path in root.paths {
            let key = Key(root: id, path: path)
            guard let head = try? RegularFile.prefix(path, in: prefix, count: Self.headMax) else { continue }
            fileExists.insert(key)
            fileBuild[key] = .some(Self.buildID(head))
        }
        if let status = try? RegularFile.read("/var/lib/dpkg/status", in: prefix, limitBytes: Self.listMax) {
            let packages = InstalledPackages(status: status)
            let diversions = Diversions((try? RegularFile.read("/var/lib/dpkg/diversions", in: prefix, limitBytes: Self.listMax)) ?? [])
            var owners = FileOwners(of: root.paths, diversions: diversions)
            let info = prefix + "/var/lib/dpkg/info"
            for name in (try? FileManager.default.contentsOfDirectory(atPath: info)) ?? [] where name.hasSuffix(".list") {
                if let list = try? RegularFile.read("/var/lib/dpkg/info/" + name, in: prefix, limitBytes: Self.listMax) {
                    owners.read(list: list, of: String(name.dropLast(5)))
                }
            }
            for path in root.paths {
                if let owner = owners[path], let package = packages[owner] {
                    root.owners[path] = (package.name, package.version.description)
                }
            }
        }
        roots[id] = root
    }

    /// From the first bytes of a file: notes stand right behind the headers.
    private static func buildID(_ head: [UInt8]) -> BuildID? {
        let view = Bytes(head, name: "")
        guard view.u32(0) == 0x464c_457f, let table = view.u64(32).flatMap({ Int(exactly: $0) }), view.u16(54) == 56 else { return nil }
        for i in 0..<min(Int(view.u16(56) ?? 0), 64) {
            let at = table + i * 56
            guard view.u32(at) == Segment.note, let offset = view.u64(at + 8).flatMap({ Int(exactly: $0) }),
                let size = view.u64(at + 32).flatMap({ Int(exactly: $0) }), let notes = view.slice(offset, size)
            else { continue }
            if let id = ELFFile.buildID(inNotes: notes) { return id }
        }
        return nil
    }
}
