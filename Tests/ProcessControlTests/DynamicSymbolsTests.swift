// What a loaded object exports is found in its memory as in its file, and nothing that may stand there makes the reader fail.

import ELF
import Foundation
import ProcessControl
import Testing

/// A library as it is in memory, at addresses of a process.
private struct LoadedFile: MemoryReader {
    static let bias = LoadBias(0x7f00_0000_0000)
    var bytes: [UInt8] = []
    let file: ELFFile

    init(_ path: String) throws {
        file = try ELFFile(RegularFile.read(path), name: path)
        for segment in file.segments where segment.type == Segment.load {
            let start = Int(segment.address.value)
            if bytes.count < start + segment.memorySize { bytes += [UInt8](repeating: 0, count: start + segment.memorySize - bytes.count) }
            bytes.replaceSubrange(start..<start + segment.fileSize, with: file.read(segment.address, segment.fileSize) ?? [])
        }
    }

    func read(at address: RuntimeAddress, count: Int) throws -> [UInt8] {
        let start = Self.bias.link(address).value
        guard count >= 0, start <= UInt64(bytes.count), count <= bytes.count - Int(start) else {
            throw Failure("memory-unreadable", "nothing is there.")
        }
        return Array(bytes[Int(start)..<Int(start) + count])
    }

    var symbols: DynamicSymbols? {
        let start = Self.bias.runtime(LinkAddress(0))
        return DynamicSymbols(self, bias: Self.bias, segments: file.segments, extent: start..<start + bytes.count)
    }
}

/// SplitMix64: the same seed, the same bytes.
private struct Dice: RandomNumberGenerator {
    var state: UInt64
    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var z = (state ^ (state >> 30)) &* 0xbf58_476d_1ce4_e5b9
        z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
        return z ^ (z >> 31)
    }
}

@Suite struct DynamicSymbolsTests {
    static let paths = ["/lib/x86_64-linux-gnu/libgcc_s.so.1", "/lib/x86_64-linux-gnu/libc.so.6"].filter {
        FileManager.default.fileExists(atPath: $0)
    }

    @Test("every function of the file is found by its name, and nothing else", arguments: paths)
    func sameAsTheFile(_ path: String) throws {
        let loaded = try LoadedFile(path)
        let symbols = try #require(loaded.symbols)
        var wanted: [String: Set<UInt64>] = [:]
        for s in loaded.file.dynamicSymbols where s.isDefined && s.kind == .function { wanted[s.name, default: []].insert(s.value.value) }
        #expect(wanted.count > 20)
        for (name, addresses) in wanted {
            #expect(Set(symbols.functions(named: name, loaded).map(\.lowerBound.value)) == addresses, "\(name)")
        }
        for name in ["", "no_such_function", "__register_frame_inf", "mallocx"] { #expect(symbols.functions(named: name, loaded).isEmpty) }
    }

    @Test("memory that nobody wrote does no harm")
    func hostile() throws {
        let path = try #require(Self.paths.first)
        let loaded = try LoadedFile(path)
        let dynamic = try #require(loaded.file.segments.first { $0.type == Segment.dynamic })
        let tables = loaded.file.sections.filter { [".gnu.hash", ".dynsym", ".dynstr"].contains($0.name) }
        let ranges =
            [Int(dynamic.address.value)..<Int(dynamic.address.value) + dynamic.memorySize]
            + tables.map { Int($0.address.value)..<Int($0.address.value) + min($0.size, 512) }
        for seed in 0..<400 {
            var generator = Dice(state: UInt64(seed))
            var changed = loaded
            for range in ranges {
                for _ in 0..<Int.random(in: 0...6, using: &generator) {
                    let at = Int.random(in: range, using: &generator)
                    changed.bytes[at] = [0, 0xff, 0x80, .random(in: 0...255, using: &generator)].randomElement(using: &generator) ?? 0
                }
            }
            let found = changed.symbols?.functions(named: "__register_frame_info", changed) ?? []
            #expect(found.allSatisfy { $0.lowerBound <= $0.upperBound })
        }
    }
}
