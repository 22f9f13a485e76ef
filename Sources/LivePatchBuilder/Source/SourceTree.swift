// An unpacked source package: its files by path, read one at a time and never through a link.

import ELF
import Foundation
import ProcessControl

struct SourceTree: Sendable {
    static let filesMax = 400_000
    static let fileBytesMax = 64 << 20

    let root: String
    /// Paths of regular files relative to the root, sorted.
    let files: [String]
    /// Symbolic links and what they say.
    let links: [String: String]

    /// Failures: `source-malformed`, `limit-exceeded`.
    init(root: String) throws(Failure) {
        self.root = root
        guard let walk = FileManager.default.enumerator(atPath: root) else {
            throw Failure("source-malformed", "it cannot be listed.", at: root)
        }
        var files: [String] = [], links: [String: String] = [:]
        while let path = walk.nextObject() as? String {
            // What dpkg-source keeps to undo patches with: copies of files from before them.
            if path == ".pc" {
                walk.skipDescendants()
                continue
            }
            guard files.count < Self.filesMax else { throw Failure("limit-exceeded", "more than \(Self.filesMax) files.", at: root) }
            switch walk.fileAttributes?[.type] as? FileAttributeType {
            case .typeRegular?: files.append(path)
            case .typeSymbolicLink?: links[path] = (try? FileManager.default.destinationOfSymbolicLink(atPath: root + "/" + path)) ?? ""
            default: break
            }
        }
        self.files = files.sorted()
        self.links = links
    }

    func read(_ path: String) throws(Failure) -> [UInt8] { try RegularFile.read(path, in: root, limitBytes: Self.fileBytesMax) }
}
