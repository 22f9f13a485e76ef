// Pointers are found wherever and however they lie, and dead parts of stacks do not count.

import ELF
import Glibc
import ProcessControl
import Testing

@Suite struct PointerSearchTests {
    /// Where nothing of this process is.
    private let target = RuntimeAddress(0x1234_5678_f000)..<RuntimeAddress(0x1234_5679_2000)
    private let scramble: UInt64 = 0xa5a5_1234_9876_0f0f

    /// Searches `size` bytes of own memory with `word` at `offset`.
    private func hit(_ word: UInt64, at offset: Int, size: Int = 3 << 20, scramble: UInt64? = nil) throws -> Int? {
        let memory = try ProcessHandle(.own).memory()
        guard let raw = unsafe mmap(nil, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) else { return nil }
        defer { unsafe munmap(raw, size) }
        unsafe raw.storeBytes(of: word, toByteOffset: offset, as: UInt64.self)
        let start = RuntimeAddress(UInt64(UInt(bitPattern: raw)))
        let hit = try PointerSearch(into: target, of: memory).firstHit(in: [start..<start + size], guard: scramble)
        return try hit.map { try #require($0.address) - start }
    }

    @Test(arguments: [0, 1, 3, 4, 4097, (1 << 20) - 4, (1 << 20) - 8, (3 << 20) - 8])
    func aPointerIsFoundAtAnyOffset(_ offset: Int) throws {
        #expect(try hit(0x1234_5679_0123, at: offset) == offset)
    }

    @Test func theEdgesOfTheRange() throws {
        #expect(try hit(0x1234_5678_f000, at: 64) == 64)
        #expect(try hit(0x1234_5679_1fff, at: 64) == 64)
        #expect(try hit(0x1234_5678_efff, at: 64) == nil)
        #expect(try hit(0x1234_5679_2000, at: 64) == nil)
    }

    @Test func aTaggedPointerIsFound() throws {
        #expect(try hit(0xfff8_1234_5679_0123, at: 64) == 64)
    }

    @Test func aPointerThatGlibcScrambledIsFound() throws {
        let mixed = 0x1234_5679_0123 ^ scramble
        let scrambled = mixed << 17 | mixed >> 47
        #expect(try hit(scrambled, at: 4096) == nil)
        #expect(try hit(scrambled, at: 4096, scramble: scramble) == 4096)
    }

    @Test func registersCount() throws {
        let search = PointerSearch(into: target, of: try ProcessHandle(.own).memory())
        #expect(search.firstHit(in: [1, 0x1234_5679_0000], guard: nil)?.pointer == 0x1234_5679_0000)
        #expect(search.firstHit(in: [1, 0x1234_5680_0000], guard: nil) == nil)
    }

    @Test func stacksCountFromTheirStackPointerUp() throws {
        let search = PointerSearch(into: target, of: try ProcessHandle(.own).memory())
        let maps = try parseMaps(
            Array(
                """
                1000-2000 ---p 00000000 00:00 0
                2000-9000 rw-p 00000000 00:00 0
                a000-b000 r--p 00000000 fe:01 5 /lib/x
                b000-c000 rw-p 00000000 fe:01 5 /lib/x
                d000-e000 r--p 00000000 00:00 0
                20000-30000 rw-p 00000000 00:00 0 [stack]
                """.utf8))
        func places(_ pointers: UInt64...) -> [Range<UInt64>] {
            search.places(in: maps, stackPointers: pointers.map { RuntimeAddress($0) }).map { $0.lowerBound.value..<$0.upperBound.value }
        }
        #expect(places() == [0xb000..<0xc000, 0xd000..<0xe000])
        #expect(places(0x8000, 0x28000) == [0x7f80..<0x9000, 0xb000..<0xc000, 0xd000..<0xe000, 0x27f80..<0x30000])
        // Two threads in one mapping: it is no thread's own stack.
        #expect(places(0x8000, 0x3000, 0x28000).first == 0x2000..<0x9000)
    }
}
