// Files whose pages several processes map instead of having a copy each. What is in one stays as it is: the kernel lets nobody
// change it, so that no process can be hurt by what happens to the file.

import CLinux
import ELF
import Synchronization

/// A file with code, known by more than its name.
public struct CodeFile: Sendable, Equatable {
    /// As a process with Fother's own root directory means it.
    public var path: String
    let device: UInt64
    let inode: UInt64

    /// Whether `path` leads to this very file.
    func isBehind(_ path: String) -> Bool { isFile(path, device, inode) }
}

public final class CodeFiles: Sendable {
    /// A path longer than this may not fit the room that a call has.
    public static let pathBytesMax = 160

    public let folder: String
    private let known = Mutex<[String: Result<CodeFile, Failure>]>([:])

    /// `folder` is created when it is first needed, in one that exists: this user's own, and readable by all.
    public init(folder: String) { self.folder = folder }

    /// The file called `name` with these bytes, made when there is none. The same name must always mean the same bytes.
    /// `library`: whose SELinux label it gets, so that whoever may run that may run this. Failure: `code-file`.
    public func file(_ name: String, _ bytes: [UInt8], labelledLike library: String) throws(Failure) -> CodeFile {
        let answer = known.withLock { known in
            if let answer = known[name] { return answer }
            let answer = Result { () throws(Failure) in try make(name, bytes, library) }
            known[name] = answer
            return answer
        }
        return try answer.get()
    }

    private func make(_ name: String, _ bytes: [UInt8], _ library: String) throws(Failure) -> CodeFile {
        let path = folder + "/" + name
        func no(_ sentence: String) -> Failure { Failure("code-file", sentence, at: path) }
        guard path.utf8.count <= Self.pathBytesMax, path.hasPrefix("/"), !path.utf8.contains(0) else {
            throw no("the path cannot be used.")
        }
        do {
            let directory = try Descriptor(codeFolder: folder)
            let id = try directory.codeFile(name, bytes, label: label(of: library))
            return CodeFile(path: path, device: id.device, inode: id.inode)
        } catch {
            throw no("it cannot be made so that nobody can change it: \(error.text).")
        }
    }
}

extension ProcessHandle {
    /// Whether the process itself would open `file` by its path. Asks no file system that is not known already, which might be
    /// the process's own and never answer.
    public func canName(_ file: CodeFile) -> Bool {
        guard let thread = try? livingThread() else { return false }
        return namesFile("/proc/\(id)/task/\(thread)/root", file.path, file.device, file.inode)
    }

    /// Whether `mapping` is of `file`.
    public func isMapping(_ mapping: Mapping, of file: CodeFile) -> Bool { file.isBehind(pathOfFile(behind: mapping)) }
}
