// Another process's memory through /proc/PID/mem: reading, and writing that ignores page protections.

import CLinux
import ELF
import Glibc

/// One address space. It stays this one: after an exec or the end of the process everything throws `process-gone`
/// and nothing of a new program is ever read or written.
///
/// Needs no stop and no ptrace attachment. Writing works on read-only and executable private mappings of a running
/// process (the page is un-shared and charged to the target's memory cgroup); not on shared read-only mappings, and
/// kernels >= 6.12 can be configured to demand an attachment.
public final class ProcessMemory: MemoryReader, Sendable {
    public let process: ProcessID
    /// One whose memory this is: calls that take no file name it.
    let thread: ThreadID
    private let file: Descriptor

    public enum Limits {
        /// A single read is refused above this: nothing Fother looks at is larger.
        public static let readBytes = 256 << 20
    }

    init(_ process: ProcessHandle) throws(Failure) {
        self.process = process.id
        // Opening for writing needs the same permission as reading: PTRACE_MODE_ATTACH.
        thread = try process.livingThread()
        let name = "task/\(thread)/mem"
        do { file = try Descriptor(opening: name, in: process.directory, flags: O_RDWR) } catch {
            throw processFailure(error, process.id, name)
        }
    }

    /// Failures: `process-gone`; `memory-unreadable`, naming the first address that is not mapped.
    public func read(at address: RuntimeAddress, count: Int) throws(Failure) -> [UInt8] {
        if count == 0 { return [] }
        guard count > 0, count <= Limits.readBytes, address.value.addingReportingOverflow(UInt64(count)).overflow == false
        else { throw unreadable(address, count, "that is not a range that can be read") }
        let bytes: [UInt8]
        do { bytes = try file.read(at: address.value, count: count) } catch {
            if error.code == EIO || error.code == EFAULT { throw unreadable(address, count, "it is not mapped") }
            throw processFailure(error, process, "mem")
        }
        guard !bytes.isEmpty else { throw gone }
        guard bytes.count == count else {
            throw unreadable(address, count, "\(address + bytes.count) is not mapped")
        }
        return bytes
    }

    /// Writes all of `bytes`. Not atomic, except for a single byte. Failures: `process-gone`; `memory-unwritable`,
    /// saying how many bytes were written before the first that could not be.
    public func write(_ bytes: [UInt8], at address: RuntimeAddress) throws(Failure) {
        if bytes.isEmpty { return }
        let written: Int
        do { written = try file.write(bytes, at: address.value) } catch {
            if error.code == EIO || error.code == EFAULT { throw unwritable(address, bytes.count, 0) }
            throw processFailure(error, process, "mem")
        }
        guard written > 0 else { throw gone }
        guard written == bytes.count else { throw unwritable(address, bytes.count, written) }
    }

    /// Throws `process-gone` when the address space has ended. What was looked at before, maps included, was of this one if
    /// it has not.
    public func requireAlive() throws(Failure) {
        // Nothing is mapped at 0: a living one answers with an error, and one that has ended with nothing at all.
        if let bytes = try? file.read(at: 0, count: 1), bytes.isEmpty { throw gone }
    }

    private var gone: Failure {
        Failure("process-gone", "the program that was looked at has ended, or replaced itself by exec.", at: "process \(process)")
    }
    private func unreadable(_ address: RuntimeAddress, _ count: Int, _ why: String) -> Failure {
        Failure("memory-unreadable", "\(count) bytes at \(address) cannot be read: \(why).", at: "process \(process)")
    }
    private func unwritable(_ address: RuntimeAddress, _ count: Int, _ written: Int) -> Failure {
        Failure(
            "memory-unwritable",
            "\(count) bytes at \(address) cannot be written (\(written) were): it is not mapped, or mapped shared and read-only, "
                + "or this kernel forbids writing to other processes.",
            at: "process \(process)")
    }
}
