// Proves that a thread can make a call that takes the unwinder's lock and allocates: that it holds no lock of the unwinder,
// the loader or the allocator, and is not in the middle of their work. Its whole stack is walked for that.

import ELF
import LivePatch
import ProcessControl

struct OutsideRuntime {
    /// Every call that waits and that neither an allocator nor a loader or unwinder makes: poll, pause, nanosleep, accept,
    /// recvfrom, recvmsg, wait4, msgrcv, semop, select and their relatives.
    static let waits: Set<Int> = [
        7, 23, 34, 35, 43, 44, 45, 47, 61, 65, 70, 128, 130, 208, 220, 230, 232, 247, 270, 271, 281, 288, 299, 333, 426, 441,
    ]
    /// These an allocator makes too, but not while it is called by nobody: its frames would be there.
    static let readsAndWrites: Set<Int> = [0, 1, 19, 20]
    static let futex = 202

    /// Entries of the allocator in libc: whoever is inside has one of them on its stack.
    static let allocator = [
        "malloc", "free", "calloc", "realloc", "reallocarray", "memalign", "aligned_alloc", "posix_memalign", "valloc", "pvalloc",
        "malloc_trim", "malloc_info", "malloc_stats", "mallinfo", "mallinfo2", "mallopt", "malloc_usable_size", "fork", "_Fork", "vfork",
    ]
    /// Entries of libc that wait for other threads and allocate nothing while they do.
    static let waitsForThreads = [
        "pthread_cond_wait", "pthread_cond_timedwait", "pthread_cond_clockwait", "pthread_join", "pthread_clockjoin_np",
        "pthread_timedjoin_np", "pthread_barrier_wait", "pthread_mutex_lock", "pthread_rwlock_rdlock", "pthread_rwlock_wrlock", "sem_wait",
        "sem_timedwait", "sem_clockwait", "cnd_wait", "cnd_timedwait", "mtx_lock", "thrd_join", "syscall",
    ]

    private let walker: StackWalker
    private let stacks: StackMap
    private let words: WordReader
    /// Objects in which a frame means that the thread is at work there.
    private let runtime: [LoadedObject]
    private let library: LoadedObject?
    private let allocating: [Range<RuntimeAddress>]
    private let waiting: [Range<RuntimeAddress>]

    /// Everything that can be prepared while no thread stands still.
    init(_ exports: [Exports], unwinder: LoadedObject, _ walker: StackWalker, _ stacks: StackMap, _ memory: ProcessMemory) {
        self.walker = walker
        self.stacks = stacks
        words = WordReader(memory)
        // The loader, and whoever allocates instead of libc.
        let c = exports.first { !$0.functions("gnu_get_libc_version").isEmpty }
        let loaders = exports.filter { !$0.functions("__tls_get_addr").isEmpty }
        let allocators = exports.filter {
            $0.object.extent != c?.object.extent && !($0.functions("malloc") + $0.functions("calloc")).isEmpty
        }
        runtime = ([unwinder] + loaders.map(\.object) + allocators.map(\.object)).filter { $0.extent != c?.object.extent }
        library = c?.object
        allocating = c.map { c in Self.allocator.flatMap(c.functions) } ?? []
        waiting = c.map { c in Self.waitsForThreads.flatMap(c.functions) } ?? []
    }

    /// Why the thread may not be asked, to be put behind its name; nil when it may.
    func objection(to candidate: DetourCandidate) -> String? {
        guard let library, !allocating.isEmpty else { return "uses a C library that is not known" }
        let thread = candidate.thread
        guard let ranges = stacks.live(thread), let range = ranges.first, ranges.count == 1,
            words.first(in: range, between: 0...0, where: { _ in false }) != .unreadable
        else { return "stands on a stack that cannot be read" }
        let walk = walker.walk(thread, words)
        guard walk.unknownFrom == nil else { return "has frames that unwind data does not explain" }
        guard walk.interrupted.isEmpty else { return "is in a signal handler" }
        // Return addresses stand behind calls; the call itself is what tells the function.
        let frames = [thread.instructionPointer] + walk.returns.map { RuntimeAddress($0 &- 1) }
        for frame in frames {
            if let object = runtime.first(where: { $0.extent.contains(frame) }) { return "is at work in \(object.path)" }
            if allocating.contains(where: { $0.contains(frame) }) { return "is allocating memory" }
        }
        let inLibrary = frames.prefix { library.extent.contains($0) }
        guard let entry = inLibrary.last else {
            return candidate.systemCall.map { Self.waits.contains($0) || Self.readsAndWrites.contains($0) } ?? true
                ? nil : "is in a system call of its own making"
        }
        guard let call = candidate.systemCall else { return "is at work in the C library" }
        if Self.waits.contains(call) || Self.readsAndWrites.contains(call) { return nil }
        if call == Self.futex, inLibrary.count < frames.count, waiting.contains(where: { $0.contains(entry) }) { return nil }
        return "is in system call \(call), which may be a part of other work"
    }
}
