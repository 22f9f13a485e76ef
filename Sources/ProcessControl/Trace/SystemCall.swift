// The system calls that Fother makes inside a target.

import ELF
import Glibc

/// One call on the target's address space.
public enum SystemCall: Equatable, Sendable {
    /// mmap of private anonymous memory exactly there; fails where anything is mapped already. Memory that will hold
    /// code must be mapped readable and executable: a process under PR_SET_MDWE may take `execute` away from a
    /// mapping, but not add it.
    case mapAnonymous(at: RuntimeAddress, bytes: Int, Mapping.Permissions)
    case protect(RuntimeAddress, bytes: Int, Mapping.Permissions)
    /// Opens a file for the calls that follow, up to `closeFile`. The descriptor is there for the time between: only for a
    /// process of one thread, where nobody can meet it.
    case openFile(path: String)
    /// mmap of private pages of that file over whatever is mapped there.
    case mapFile(at: RuntimeAddress, bytes: Int, Mapping.Permissions, offset: Int)
    case closeFile
    case unmap(RuntimeAddress, bytes: Int)
    /// mremap of one private anonymous page over whatever is mapped at `onto`, in one step: who runs there runs the old page
    /// or the new one. The kernel unmaps `onto` before the move can fail for lack of kernel memory, and then nobody can
    /// help: make sure that there is some, and that the process is not at its limit of mappings.
    case movePage(from: RuntimeAddress, onto: RuntimeAddress)

    var name: String {
        switch self {
        case .mapAnonymous, .mapFile: "mmap"
        case .openFile: "open"
        case .closeFile: "close"
        case .protect: "mprotect"
        case .unmap: "munmap"
        case .movePage: "mremap"
        }
    }

    var number: UInt32 {
        switch self {
        case .mapAnonymous, .mapFile: 9
        case .openFile: 2
        case .closeFile: 3
        case .protect: 10
        case .unmap: 11
        case .movePage: 25
        }
    }

    var range: Range<RuntimeAddress> {
        switch self {
        case .mapAnonymous(let address, let bytes, _), .protect(let address, let bytes, _), .unmap(let address, let bytes),
            .mapFile(let address, let bytes, _, _):
            address..<max(address, address + bytes)
        case .openFile, .closeFile: RuntimeAddress(0)..<RuntimeAddress(0)
        case .movePage(let address, _): address..<address + Self.page
        }
    }

    static let page = 4096

    /// The third argument; unused by munmap.
    var third: UInt32 {
        switch self {
        case .mapAnonymous(_, _, let p), .protect(_, _, let p), .mapFile(_, _, let p, _):
            (p.contains(.read) ? 1 : 0) | (p.contains(.write) ? 2 : 0) | (p.contains(.execute) ? 4 : 0)
        case .unmap, .openFile, .closeFile: 0
        case .movePage: UInt32(Self.page)
        }
    }

    /// What it returns when it worked; of `openFile` a value that counts as such.
    var success: Int64 {
        switch self {
        case .mapAnonymous(let address, _, _), .movePage(_, let address), .mapFile(let address, _, _, _): Int64(bitPattern: address.value)
        case .protect, .unmap, .openFile, .closeFile: 0
        }
    }

    func isSuccess(_ result: Int64) -> Bool {
        switch self {
        case .openFile: result >= 0
        // The descriptor is gone, whatever close says.
        case .closeFile: true
        default: result == success
        }
    }

    /// MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE (kernel 4.17; older ones take the address as a hint).
    static let mapFlags: UInt32 = 0x10_0022
    /// MAP_PRIVATE | MAP_FIXED.
    static let mapFileFlags: UInt32 = 0x12
    /// O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY.
    static let openFlags: UInt32 = 0xa_0900
    /// MREMAP_MAYMOVE | MREMAP_FIXED.
    static let moveFlags: UInt32 = 3

    /// What the kernel's map must show afterwards.
    func isDone(in maps: [Mapping]) -> Bool {
        var address = range.lowerBound
        switch self {
        case .unmap:
            return !maps.contains { $0.range.overlaps(range) }
        case .movePage(_, let onto):
            return maps.mapping(at: onto)?.isFile == false && !maps.contains { $0.range.overlaps(range) }
        case .openFile, .closeFile: return true
        case .mapAnonymous(_, _, let permissions), .protect(_, _, let permissions), .mapFile(_, _, let permissions, _):
            while address < range.upperBound {
                guard let mapping = maps.mapping(at: address), mapping.permissions == permissions else { return false }
                address = mapping.range.upperBound
            }
            return true
        }
    }
}

extension [SystemCall] {
    /// What the kernel's map must show after all of them. Later calls may have changed what earlier ones made.
    func areDone(in maps: [Mapping]) -> Bool {
        enumerated().allSatisfy { i, call in
            self[(i + 1)...].contains { $0.range.overlaps(call.range) } || call.isDone(in: maps)
        }
    }
}
