// Every parser of outside bytes, as functions of bytes: what the fuzzers drive and what the replay of their findings runs.
// None may trap, hang or use memory without bound, whatever the bytes are.

import ELF
import LivePatch
import LivePatchBuilder
import TrafficFuzzTargets

public enum FuzzTargets {
    public static let all: [(name: String, run: @Sendable ([UInt8]) -> Void)] =
        [
            ("elf", elf), ("patch", patch), ("header", header), ("dwarf", dwarf), ("source", source), ("exceptions", exceptions),
        ] + TrafficFuzzTargets.all

    /// An ELF file as the builder reads it: tables, unwind data, every function decoded.
    @Sendable public static func elf(_ bytes: [UInt8]) {
        guard let file = try? ELFFile(bytes, name: "fuzz") else { return }
        if let table = try? UnwindTable(file) {
            for frame in table.frames.prefix(64) {
                _ = table.row(at: frame.start)
                _ = table.row(at: frame.start + frame.size / 2)
            }
        }
        // The whole pipeline on small inputs: two builds that are the same bytes.
        if bytes.count < 1 << 16 { _ = try? build(old: bytes, new: bytes, BuildContext(object: "fuzz")) }
    }

    /// A patch file, and linking it.
    @Sendable public static func patch(_ bytes: [UInt8]) {
        guard let patch = try? LivePatch(parsing: bytes, name: "fuzz") else { return }
        _ = try? patch.plan(bias: LoadBias(0x5555_5555_0000), base: RuntimeAddress(0x5555_4000_0000))
        _ = try? patch.contents.encode()
    }

    /// The debug information of an ELF file.
    @Sendable public static func dwarf(_ bytes: [UInt8]) {
        guard let file = try? ELFFile(bytes, name: "fuzz"), let types = try? DebugTypes(file) else { return }
        _ = types.covers(LinkAddress(0x1000)..<LinkAddress(0x2000))
        _ = types.layouts.count
    }

    /// A source file, read as C and as C++.
    @Sendable public static func source(_ bytes: [UInt8]) {
        _ = SourceOutline.counts(of: bytes, isCPlusPlus: false)
        _ = SourceOutline.counts(of: bytes, isCPlusPlus: true)
    }

    /// Exception tables of an ELF file, and what begins at any other place of their section.
    @Sendable public static func exceptions(_ bytes: [UInt8]) {
        guard let file = try? ELFFile(bytes, name: "fuzz") else { return }
        var tables: [ExceptionTable] = []
        for frame in ((try? UnwindTable(file))?.frames ?? []).prefix(64) {
            if let at = frame.lsda, let table = try? ExceptionTable(file, at: at) { tables.append(table) }
        }
        if let section = file.section(".gcc_except_table") {
            for offset in 0..<min(section.size, 256) {
                if let table = try? ExceptionTable(file, at: section.address + offset) { tables.append(table) }
            }
        }
        for table in tables { _ = table.catchesTheSame(as: tables[0]) { $0 == $1 } }
    }

    /// A header in a target, and a loaded object's headers.
    @Sendable public static func header(_ bytes: [UInt8]) {
        if let header = try? TargetHeader(parsing: bytes, at: RuntimeAddress(0x1000)) { _ = try? header.encode() }
        let memory = FuzzMemory(bytes: bytes)
        if let image = try? MemoryImage(memory, at: RuntimeAddress(0x10000)) { _ = image.extent }
        _ = ELFFile.buildID(inNotes: bytes[...])
    }
}

/// The bytes as memory at 0x10000.
struct FuzzMemory: MemoryReader {
    let bytes: [UInt8]

    func read(at address: RuntimeAddress, count: Int) throws -> [UInt8] {
        let view = Bytes(bytes, name: "fuzz")
        guard address.value >= 0x10000, address.value < 1 << 32, let slice = view.slice(Int(address.value - 0x10000), count) else {
            throw Failure("memory-unreadable", "nothing is there.")
        }
        return Array(slice)
    }
}
