// Reads files that others may own: regular ones only, with a cap, into memory. A mapped file that is truncated kills its
// reader; a pipe in a file's place would block it.

import CLinux
import ELF
import Glibc

public enum RegularFile {
    /// The whole file. `root`: the path is meant as a process with that root directory means it, and no symbolic link leads
    /// out of it. Failures: `file-unreadable` with the reason, `limit-exceeded`.
    public static func read(_ path: String, in root: String? = nil, limitBytes: Int = ELFFile.bytesMax) throws(Failure) -> [UInt8] {
        let bytes: [UInt8]?
        do { bytes = try open(path, root).readToEnd(limitBytes: limitBytes) } catch { throw unreadable(path, error) }
        guard let bytes else { throw Failure("limit-exceeded", "the file is larger than \(limitBytes) bytes.", at: path) }
        return bytes
    }

    /// The first `count` bytes, or all when there are fewer.
    public static func prefix(_ path: String, in root: String? = nil, count: Int) throws(Failure) -> [UInt8] {
        do { return try open(path, root).read(at: 0, count: count) } catch { throw unreadable(path, error) }
    }

    /// `count` bytes at `offset`; fewer where the file ends.
    public static func read(_ path: String, at offset: FileOffset, count: Int) throws(Failure) -> [UInt8] {
        do { return try open(path, nil).read(at: offset.value, count: count) } catch { throw unreadable(path, error) }
    }

    private static func open(_ path: String, _ root: String?) throws(Errno) -> Descriptor {
        let fd = if let root { unsafe fother_open_regular_in(root, path) } else { unsafe fother_open_regular(path) }
        guard fd >= 0 else { throw Errno(fd) }
        return Descriptor(owning: fd)
    }

    private static func unreadable(_ path: String, _ error: Errno) -> Failure {
        Failure("file-unreadable", error.code == EINVAL ? "it is not a regular file." : "it cannot be read: \(error.text).", at: path)
    }
}
