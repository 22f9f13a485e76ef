// The only way from safe Swift to files and children: each function wraps one shim call and owns its pointers.

import CLinux
import Glibc

/// An errno value, as a system call returned it.
struct Errno: Error, Equatable {
    let code: Int32
    init(_ negated: Int64) { code = Int32(truncatingIfNeeded: 0 &- negated) }
    init(_ negated: Int32) { code = 0 &- negated }

    /// The text a person knows: `Permission denied`.
    var text: String { unsafe String(cString: strerror(code)) }
}

/// Owns one file descriptor and closes it.
final class Descriptor: Sendable {
    let fd: Int32
    init(owning fd: Int32) { self.fd = fd }
    deinit { _ = fother_close(fd) }

    convenience init(opening path: String, in directory: Descriptor? = nil, flags: Int32 = O_RDONLY) throws(Errno) {
        let fd = unsafe fother_openat(directory?.fd ?? AT_FDCWD, path, flags)
        guard fd >= 0 else { throw Errno(fd) }
        self.init(owning: fd)
    }

    /// The directory that a process with the root directory `root` means by `path`.
    convenience init(folder path: String, in root: String) throws(Errno) {
        let fd = unsafe fother_open_folder_in(root, path)
        guard fd >= 0 else { throw Errno(fd) }
        self.init(owning: fd)
    }

    /// In this directory, replaces whatever is called `name`.
    func replaceFile(_ name: String, _ bytes: [UInt8], mode: Int32) throws(Errno) {
        let error = unsafe bytes.withUnsafeBytes { unsafe fother_replace_file(fd, name, $0.baseAddress, $0.count, mode) }
        guard error == 0 else { throw Errno(error) }
    }

    /// A folder for code files; created, not its parents.
    convenience init(codeFolder path: String) throws(Errno) {
        let fd = unsafe fother_open_code_folder(path)
        guard fd >= 0 else { throw Errno(fd) }
        self.init(owning: fd)
    }

    /// In this folder, the file with these bytes that nobody can change.
    func codeFile(_ name: String, _ bytes: [UInt8], label: String?) throws(Errno) -> fother_file_id {
        var id = fother_file_id()
        let error = unsafe bytes.withUnsafeBytes { bytes in
            guard let label else { return unsafe fother_code_file(fd, name, bytes.baseAddress, bytes.count, nil, &id) }
            return unsafe fother_code_file(fd, name, bytes.baseAddress, bytes.count, label, &id)
        }
        guard error == 0 else { throw Errno(error) }
        return id
    }

    /// Everything up to the end of the file, or nil when that is more than `limitBytes`.
    func readToEnd(limitBytes: Int) throws(Errno) -> [UInt8]? {
        var buffer = [UInt8](repeating: 0, count: min(16 << 10, limitBytes + 1))
        var used = 0
        while true {
            let n = unsafe buffer.withUnsafeMutableBytes {
                unsafe fother_read_full(fd, $0.baseAddress?.advanced(by: used), $0.count - used)
            }
            guard n >= 0 else { throw Errno(n) }
            used += Int(n)
            if used < buffer.count { break }
            if used > limitBytes { return nil }
            buffer += [UInt8](repeating: 0, count: min(buffer.count * 3, limitBytes + 1 - used))
        }
        buffer.removeLast(buffer.count - used)
        return buffer
    }

    /// Up to `count` bytes as they come; empty at the end of the file.
    func readSome(_ count: Int) throws(Errno) -> [UInt8] {
        var error: Int64 = 0
        let bytes = unsafe [UInt8](unsafeUninitializedCapacity: count) { buffer, used in
            let n = unsafe fother_read(fd, buffer.baseAddress, count)
            used = Int(max(n, 0))
            error = min(n, 0)
        }
        guard error == 0 else { throw Errno(error) }
        return bytes
    }

    /// The bytes at `offset`; fewer than `count` where the first unreadable page begins.
    func read(at offset: UInt64, count: Int) throws(Errno) -> [UInt8] {
        var error: Int64 = 0
        let bytes = unsafe [UInt8](unsafeUninitializedCapacity: count) { buffer, used in
            let n = unsafe fother_pread(fd, buffer.baseAddress, count, offset)
            used = Int(max(n, 0))
            error = min(n, 0)
        }
        guard error == 0 else { throw Errno(error) }
        return bytes
    }

    /// How many of the bytes were written at `offset`.
    func write(_ bytes: [UInt8], at offset: UInt64) throws(Errno) -> Int {
        let n = unsafe bytes.withUnsafeBytes { unsafe fother_pwrite(fd, $0.baseAddress, $0.count, offset) }
        guard n >= 0 else { throw Errno(n) }
        return Int(n)
    }

    /// How many of `bytes[from...]` a pipe took.
    func writeSome(_ bytes: [UInt8], from start: Int) throws(Errno) -> Int {
        let n = unsafe bytes.withUnsafeBytes { unsafe fother_write(fd, $0.baseAddress?.advanced(by: start), $0.count - start) }
        guard n >= 0 else { throw Errno(n) }
        return Int(n)
    }

    /// Takes the exclusive lock on the file; false while another descriptor holds it. It is given back with this one.
    func lock() throws(Errno) -> Bool {
        let error = fother_lock(fd)
        if error == -EWOULDBLOCK { return false }
        guard error == 0 else { throw Errno(error) }
        return true
    }

    func setNonblocking() { _ = fother_set_nonblocking(fd) }

    /// The target of the symbolic link `name` in this directory.
    func readLink(_ name: String) throws(Errno) -> String {
        var error: Int64 = 0
        let bytes = unsafe [UInt8](unsafeUninitializedCapacity: 4096) { buffer, used in
            let n = unsafe fother_readlinkat(fd, name, buffer.baseAddress, 4096)
            used = Int(max(n, 0))
            error = min(n, 0)
        }
        guard error == 0 else { throw Errno(error) }
        return String(decoding: bytes, as: UTF8.self)
    }

    /// How many links the file has.
    func linkCount() throws(Errno) -> Int {
        let n = fother_links(fd)
        guard n >= 0 else { throw Errno(n) }
        return Int(n)
    }

    /// The entries of this directory whose names are numbers.
    func listNumbers() throws(Errno) -> [Int32] {
        var capacity = 256
        while true {
            var found: Int64 = 0
            let numbers = unsafe [Int32](unsafeUninitializedCapacity: capacity) { buffer, used in
                found = unsafe fother_list_numbers(fd, buffer.baseAddress, capacity)
                used = Int(min(max(found, 0), Int64(capacity)))
            }
            guard found >= 0 else { throw Errno(found) }
            if found <= capacity { return numbers }
            capacity = Int(found) + 64
        }
    }
}

/// The SELinux label of the file behind `path`; nil when it has none.
func label(of path: String) -> String? {
    var length: Int64 = 0
    let bytes = unsafe [UInt8](unsafeUninitializedCapacity: 256) { buffer, used in
        length = unsafe buffer.withMemoryRebound(to: CChar.self) { unsafe fother_label(path, $0.baseAddress, 256) }
        used = Int(max(length, 0))
    }
    // Some hold their NUL.
    return length > 0 ? String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self) : nil
}

func namesFile(_ root: String, _ path: String, _ device: UInt64, _ inode: UInt64) -> Bool {
    unsafe fother_names_file(root, path, fother_file_id(device: device, inode: inode)) == 0
}

func isFile(_ path: String, _ device: UInt64, _ inode: UInt64) -> Bool {
    unsafe fother_is_file(path, fother_file_id(device: device, inode: inode)) == 0
}

/// The two ends of a new pipe.
func makePipe() throws(Errno) -> (read: Descriptor, write: Descriptor) {
    var ends: (Int32, Int32) = (-1, -1)
    let error = unsafe withUnsafeMutablePointer(to: &ends) {
        unsafe $0.withMemoryRebound(to: Int32.self, capacity: 2) { unsafe fother_pipe($0) }
    }
    guard error >= 0 else { throw Errno(error) }
    return (Descriptor(owning: ends.0), Descriptor(owning: ends.1))
}

/// Starts a program; `standard` are its descriptors 0, 1 and 2.
func spawn(
    _ arguments: [String], environment: [String]?, directory: String?, standard: (Int32, Int32, Int32)
) throws(Errno) -> Int32 {
    let packedArguments = packed(arguments)
    let packedEnvironment = environment.map(packed)
    var standard = standard
    let pid = unsafe withUnsafeMutablePointer(to: &standard) {
        unsafe $0.withMemoryRebound(to: Int32.self, capacity: 3) { fds in
            unsafe packedArguments.withUnsafeBufferPointer { argv in
                guard let packedEnvironment else {
                    return unsafe fother_spawn(argv.baseAddress, argv.count, nil, 0, directory, fds)
                }
                return unsafe packedEnvironment.withUnsafeBufferPointer { envp in
                    // An empty array may have no address, and null means "inherit".
                    let empty: [CChar] = [0]
                    return unsafe empty.withUnsafeBufferPointer { none in
                        unsafe fother_spawn(
                            argv.baseAddress, argv.count, envp.baseAddress ?? none.baseAddress, envp.count, directory,
                            fds)
                    }
                }
            }
        }
    }
    guard pid > 0 else { throw Errno(pid) }
    return pid
}

private func packed(_ strings: [String]) -> [CChar] {
    strings.flatMap { $0.utf8.map { CChar(bitPattern: $0) } + [0] }
}

/// The wait status of `pid`, or nil when nothing happened and `options` hold WNOHANG.
func waitFor(_ pid: Int32, options: Int32) throws(Errno) -> fother_status? {
    var status: Int32 = 0
    let n = unsafe fother_waitpid(pid, &status, options)
    guard n >= 0 else { throw Errno(n) }
    return n == 0 ? nil : fother_decode_status(status)
}
