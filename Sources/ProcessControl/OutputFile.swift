// Writes files into folders that others may write to as well: a name that somebody prepared there is replaced, never followed.

import CLinux
import ELF
import Glibc

public enum OutputFile {
    /// Writes a file of this user's own. `root`: `folder` is meant as a process with that root directory means it, and no link
    /// leads out of it. Failure: `output-unwritable`.
    public static func replace(_ name: String, in folder: String, root: String = "/", _ bytes: [UInt8], mode: Int32) throws(Failure) {
        do { try Descriptor(folder: folder, in: root).replaceFile(name, bytes, mode: mode) } catch {
            throw Failure("output-unwritable", "the file cannot be written: \(error.text).", at: folder + "/" + name)
        }
    }
}

extension ProcessHandle {
    /// Where perf looks for names of code without a file: `/tmp/perf-PID.map`, with the process's id and `/tmp` of its own mount
    /// namespace when it has one.
    public func perfMap() throws(Failure) -> (root: String, name: String) {
        let thread = try livingThread()
        let theirs: String, ours: String
        do {
            theirs = try directory.readLink("task/\(thread)/ns/mnt")
            ours = try Descriptor(opening: "/proc/self/ns", flags: O_RDONLY | O_DIRECTORY).readLink("mnt")
        } catch { throw processFailure(error, id, "ns/mnt") }
        if theirs == ours { return ("/", "perf-\(id).map") }
        return (pathInItsRoot(""), "perf-\(try status().namespaceIDs.last ?? id.value).map")
    }
}
