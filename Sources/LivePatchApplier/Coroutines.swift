// Looks for coroutines that are suspended inside code that is about to change: stacks that no thread stands on, and that
// somebody will return to.

import ELF
import LivePatch
import ProcessControl
import Synchronization

/// Knows by name which objects switch stacks, or may. By build ID, as unwind tables are.
public final class StackSwitchers: Sendable {
    /// Who wants one of these, or offers it, switches stacks: the C library's, Boost.Context, libco, Ruby, PHP, greenlet, and
    /// programs that use OpenSSL's asynchronous jobs.
    static let names = [
        "makecontext", "swapcontext", "setcontext", "jump_fcontext", "ontop_fcontext", "make_fcontext", "co_switch", "coro_transfer",
        "rb_fiber_resume", "rb_fiber_transfer", "zend_fiber_switch_context", "PyInit__greenlet", "SSL_get_all_async_fds",
        "SSL_waiting_for_async",
    ]
    /// The C library itself; OpenSSL, whose jobs nobody has who does not ask for them.
    static let innocent = ["__libc_start_main", "ASYNC_start_job", "SSL_new"]
    private static let interpreter: UInt32 = 3

    private let known = Mutex<[BuildID: String?]>([:])

    public init() {}

    /// Why there may be coroutines: the object and what it uses. Nil when no object gives a reason.
    func reason(in objects: [LoadedObject], _ memory: ProcessMemory) -> String? {
        for object in objects {
            let known = object.buildID.flatMap { id in self.known.withLock { $0[id] } }
            let answer = known ?? Self.read(object, memory)
            if known == nil, let id = object.buildID { self.known.withLock { $0[id] = .some(answer) } }
            if let answer { return "\(object.path.split(separator: "/").last ?? "an object") \(answer)" }
        }
        return nil
    }

    private static func read(_ object: LoadedObject, _ memory: ProcessMemory) -> String? {
        // The kernel's own object is no file, so it is not among these.
        guard let found = DynamicNames(names + innocent, in: object.segments, bias: object.bias, of: memory) else {
            return "has no names of what it calls"
        }
        if let name = names.first(where: { found.offered.union(found.wanted).contains($0) }) {
            return found.offered.isDisjoint(with: innocent) ? "uses \(name)" : nil
        }
        // A program without a loader has the C library inside.
        let isStatic = found.count <= 1 && !object.segments.contains { $0.type == interpreter }
        return isStatic ? "has no names of what it calls" : nil
    }
}

/// One search, prepared before the stop.
struct CoroutineSearch {
    /// A process with more than this in which a stack could be would stand still for too long.
    static let bytesMax: UInt64 = 512 << 20
    private static let chunkBytes = 4 << 20

    /// Nil: only a thread that stands on a stack of its own making is a reason.
    let reason: String?
    let guarded: GuardedRanges
    let process: ProcessHandle
    let words: WordReader
    let search: PointerSearch

    /// `patch`: whose own memory is left out.
    init(reason: String?, guarded: GuardedRanges, _ target: Target, _ words: WordReader, patch: ApplyPlan?) {
        self.reason = reason
        self.guarded = guarded
        self.words = words
        process = target.handle
        search = PointerSearch(into: patch?.mapping ?? RuntimeAddress(0)..<RuntimeAddress(0), of: target.memory)
    }

    /// What lies in the way while the process runs: worth a look before it is stopped.
    func blockingBeforeStop() throws(Failure) -> BlockingThread? {
        guard reason != nil else { return nil }
        return try first(in: try process.mappings(), threads: [])
    }

    /// The same for a process that stands still, if there is a reason to look.
    func blocking(_ threads: [StoppedThread], _ stacks: StackMap) throws(Failure) -> BlockingThread? {
        guard reason != nil || threads.contains(where: { !$0.isKernelWorker && stacks.isForeign($0) }) else { return nil }
        return try first(in: stacks.maps, threads: threads.filter { !$0.isKernelWorker && !stacks.isForeign($0) })
    }

    /// `threads` stand on their own stacks, which have been looked at.
    private func first(in maps: [Mapping], threads: [StoppedThread]) throws(Failure) -> BlockingThread? {
        let own = threads.compactMap { maps.mapping(at: $0.stackPointer)?.range.lowerBound }
        let pages = PresentPages(of: process)
        var places: [Range<RuntimeAddress>] = []
        var bytes: UInt64 = 0
        for place in search.places(in: maps, stackPointers: threads.map(\.stackPointer)) {
            guard let home = maps.mapping(at: place.lowerBound), home.permissions.contains(.write) else { continue }
            // A stack that was cut at its stack pointer is one that the C library or the kernel made.
            if own.contains(home.range.lowerBound), home.path == "[stack]" || place.lowerBound > home.range.lowerBound { continue }
            for part in pages.parts(of: place) {
                bytes &+= part.upperBound.value &- part.lowerBound.value
                places.append(part)
            }
        }
        guard bytes <= Self.bytesMax else {
            throw Failure(
                "coroutines",
                "it may have coroutines (\(reason ?? "a thread stands on a stack of its own making")), and \(bytes >> 20) MiB in which a suspended one could be, "
                    + "too much to search while it stands still (\(Self.bytesMax >> 20) MiB).", at: "\(process)",
                remedy: "Restart the process with the fixed package.")
        }
        let scramble = threads.first.flatMap { search.pointerGuard(of: $0.threadPointer) }
        for place in places {
            var at = place.lowerBound
            while at < place.upperBound {
                let end = min(at + Self.chunkBytes, place.upperBound)
                switch words.first(in: at..<end, between: guarded.bounds, where: isReturn) {
                case .none: break
                case .found(let word): return block(word, maps.mapping(at: at))
                case .unreadable:
                    throw Failure(
                        "coroutines", "it may have coroutines (\(reason ?? "")), and the memory at \(at) cannot be read.", at: "\(process)",
                        remedy: "Restart the process with the fixed package.")
                }
                if let scramble, let word = words.firstUnscrambled(scramble, between: guarded.bounds, where: isReturn) {
                    return block(word, maps.mapping(at: at))
                }
                at = end
            }
        }
        return nil
    }

    private func isReturn(_ word: UInt64) -> Bool { guarded.name(behindStart: word) != nil }

    private func block(_ word: UInt64, _ mapping: Mapping?) -> BlockingThread {
        let name = mapping.map { $0.path.isEmpty ? "\($0.range.lowerBound)" : $0.path } ?? "?"
        return BlockingThread(
            thread: ThreadID(process.id.value), function: guarded.name(behindStart: word) ?? "", isExecuting: false,
            coroutineIn: name)
    }
}
