// Finds the unwinder that a process uses, and whether unwind data can be registered with it: libgcc's interface
// (`__register_frame_info`), which C++ exceptions, backtrace(3) and thread cancellation all go through.

import ELF
import LivePatch
import MachineCode
import ProcessControl

/// The functions of one loaded object.
struct Exports: Sendable {
    let object: LoadedObject
    private let symbols: DynamicSymbols?
    private let memory: ProcessMemory

    init(_ object: LoadedObject, _ memory: ProcessMemory) {
        self.object = object
        self.memory = memory
        symbols = DynamicSymbols(memory, bias: object.bias, segments: object.segments, extent: object.extent)
    }

    /// What others know the object by.
    var soname: String? { symbols?.soname }

    /// Where every version of a function is; only what lies in the object's executable segments counts.
    func functions(_ name: String) -> [Range<RuntimeAddress>] {
        (symbols?.functions(named: name, memory) ?? []).compactMap { f in
            let start = object.bias.runtime(f.lowerBound), end = object.bias.runtime(f.upperBound)
            let isCode = object.segments.contains { $0.type == Segment.load && $0.isExecutable && $0.contains(f.lowerBound) }
            return isCode && start <= end && object.extent.contains(start) ? start..<end : nil
        }
    }
}

struct Unwinder: Sendable {
    var object: LoadedObject
    /// void __register_frame_info(const void *begin, struct object *)
    var register: RuntimeAddress
    /// void *__deregister_frame_info(const void *begin); aborts when `begin` is not registered.
    var deregister: RuntimeAddress

    enum Answer: Sendable {
        case one(Unwinder)
        /// Nothing in the process unwinds.
        case none
        case unusable(Failure)
    }

    static func find(_ exports: [Exports], _ process: ProcessID) -> Answer {
        let unwinding = exports.filter { !$0.functions("_Unwind_RaiseException").isEmpty }
        guard let first = unwinding.first else { return .none }
        func unusable(_ sentence: String) -> Answer {
            .unusable(Failure("no-registrable-unwinder", sentence, at: "process \(process)", remedy: "Restart it with the fixed package."))
        }
        guard unwinding.count == 1 else {
            return unusable("it has several unwinders: \(unwinding.map(\.object.path).joined(separator: ", ")).")
        }
        // LLVM's unwinder has functions of the same names that do nothing.
        guard first.soname == Self.libgcc else { return unusable("its unwinder, \(first.object.path), is not libgcc's.") }
        guard let register = first.functions("__register_frame_info").first,
            let deregister = first.functions("__deregister_frame_info").first
        else { return unusable("its unwinder, \(first.object.path), does not take unwind data of others.") }
        return .one(Unwinder(object: first.object, register: register.lowerBound, deregister: deregister.lowerBound))
    }

    static let libgcc = "libgcc_s.so.1"

    /// Whether the unwinder has written down, in the object it was given, where the unwind data is (`struct object`, `u` at 24): as
    /// every libgcc does, those that keep a tree (13 and later) instead of a list too.
    static func hasNotes(in block: RuntimeAddress, _ memory: ProcessMemory) -> Bool {
        guard let word = try? memory.read(at: block + RegistrationStub.Block.objectOffset + 24, count: 8) else { return false }
        return word.contains { $0 != 0 }
    }

    /// Whether the unwinder's list of registered objects holds `notes`: only then may it be deregistered. libgcc up to 12 keeps
    /// a list whose heads are in its data (`struct object`, `next` at 40); what is not found there is not proved.
    func lists(_ notes: RuntimeAddress, _ memory: ProcessMemory) -> Bool {
        var hops = 0
        for segment in object.segments where segment.type == Segment.load && segment.isWritable && segment.memorySize <= Self.dataMax {
            guard let raw = try? memory.read(at: object.bias.runtime(segment.address), count: segment.memorySize) else { continue }
            let words = Bytes(raw, name: object.path)
            for at in stride(from: 0, to: raw.count - 7, by: 8) {
                var next = RuntimeAddress(words.u64(at) ?? 0)
                for _ in 0..<Self.listMax where next.value != 0 {
                    if next == notes { return true }
                    hops += 1
                    guard hops < Self.hopsMax else { return false }
                    guard next.value & 7 == 0, let link = try? memory.read(at: next + 40, count: 8) else { break }
                    next = RuntimeAddress(Bytes(link, name: "").u64(0) ?? 0)
                }
            }
        }
        return false
    }
    static let dataMax = 1 << 20
    static let listMax = 256
    /// A process can make lists of anything.
    static let hopsMax = 50_000
}
