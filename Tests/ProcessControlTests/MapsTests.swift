// The memory map is text that others choose: what is read from it, and what is refused.
import ELF
import ProcessControl
import Testing

@Suite struct MapsTests {
    private func parse(_ text: String) throws -> [Mapping] { try parseMaps(Array(text.utf8)) }

    @Test func fileMappingHasEveryField() throws {
        let m = try #require(
            try parse("7f0000001000-7f0000003000 r-xp 00026000 fe:01 1234567                    /usr/lib/libc.so.6\n").first)
        #expect(m.range == RuntimeAddress(0x7f00_0000_1000)..<RuntimeAddress(0x7f00_0000_3000))
        #expect(m.permissions == [.read, .execute])
        #expect(m.permissions.description == "r-xp")
        #expect(m.offset == FileOffset(0x26000))
        #expect(m.device == Mapping.Device(major: 0xfe, minor: 1))
        #expect(m.inode == 1_234_567)
        #expect(m.path == "/usr/lib/libc.so.6")
        #expect(!m.isDeleted)
        #expect(m.byteCount == 0x2000)
    }

    @Test func anonymousAndSpecialMappings() throws {
        let maps = try parse(
            """
            5600000000-5600021000 rw-p 00000000 00:00 0                          [heap]
            7f0000000000-7f0000001000 rw-s 00000000 00:00 0 
            ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]

            """.replacing("\n\n", with: "\n"))
        #expect(maps.map(\.path) == ["[heap]", "", "[vsyscall]"])
        #expect(maps.map(\.isFile) == [false, false, false])
        #expect(maps[1].permissions.contains(.shared))
        #expect(maps[2].permissions == .execute)
    }

    @Test func deletedFileAndNewlineInPath() throws {
        let maps = try parse(
            """
            1000-2000 r-xp 00000000 fe:01 5 /tmp/two\\012lines (deleted)
            2000-3000 r--p 00001000 fe:01 6 /tmp/back\\slash
            """)
        #expect(maps[0].path == "/tmp/two\nlines")
        #expect(maps[0].isDeleted)
        #expect(maps[1].path == "/tmp/back\\slash")
        #expect(!maps[1].isDeleted)
    }

    @Test func spacesInsideAPathAreKept() throws {
        #expect(try parse("1000-2000 r-xp 00000000 fe:01 5    /opt/a  b c").first?.path == "/opt/a  b c")
    }

    @Test(arguments: [
        "garbage", "1000-2000", "2000-1000 r-xp 0 0:0 0", "1000-1000 r-xp 0 0:0 0", "1000-2000 q-xp 0 0:0 0",
        "1000-2000 r-xp 0 0:0 99999999999999999999999", "10000000000000000-2 r-xp 0 0:0 0",
        "1000-2000 r-xp 0 100000000:0 0", "1000-2000 r-xp 0 0:0",
    ])
    func malformedLineIsAFailureThatNamesTheLine(_ line: String) throws {
        let failure = #expect(throws: Failure.self) { try parse("500-600 r-xp 00000000 00:00 0\n" + line) }
        #expect(failure?.code == "maps-malformed")
        #expect(failure?.place.contains("line 2") == true)
    }

    @Test func overlappingMappingsAreRefused() throws {
        let failure = #expect(throws: Failure.self) {
            try parse("1000-3000 r-xp 0 0:0 0\n2000-4000 r-xp 0 0:0 0\n")
        }
        #expect(failure?.code == "maps-malformed")
    }

    @Test func lookupFindsTheMappingOrNothing() throws {
        let maps = try parse("1000-2000 r-xp 0 0:0 0\n2000-3000 r-xp 0 0:0 0\n5000-6000 rw-p 0 0:0 0\n")
        #expect(maps.mapping(at: RuntimeAddress(0x1fff))?.range.lowerBound == RuntimeAddress(0x1000))
        #expect(maps.mapping(at: RuntimeAddress(0x2000))?.range.lowerBound == RuntimeAddress(0x2000))
        #expect(maps.mapping(at: RuntimeAddress(0x4000)) == nil)
        #expect(maps.mapping(at: RuntimeAddress(0x6000)) == nil)
        #expect(maps.mapping(at: RuntimeAddress(0)) == nil)
    }
}

@Suite struct StatusTests {
    @Test func statusOfAnOrdinaryProcess() throws {
        let text = """
            Name:\tsh (odd)
            Umask:\t0022
            State:\tT (stopped)
            Tgid:\t77
            Pid:\t77
            PPid:\t1
            TracerPid:\t42
            Uid:\t1000\t0\t0\t0
            NSpid:\t77\t5
            VmSize:\t  100 kB
            Threads:\t3
            Seccomp:\t2
            x86_Thread_features:\tshstk wrss
            """
        let status = try ProcessStatus(parsing: Array(text.utf8))
        #expect(status.name == "sh (odd)")
        #expect(status.state == .stopped)
        #expect(status.threadGroup == ProcessID(77))
        #expect(status.tracer == ProcessID(42))
        #expect(status.user == 1000)
        #expect(status.namespaceIDs == [77, 5])
        #expect(status.threadCount == 3)
        #expect(status.seccomp == .filter)
        #expect(!status.isKernelThread)
        #expect(status.hasShadowStack)
    }

    @Test func taskWithoutMemoryIsAKernelThreadUnlessItIsAZombie() throws {
        let thread = try ProcessStatus(parsing: Array("Name:\tkworker\nState:\tI (idle)\nTgid:\t9\nPPid:\t2\nTracerPid:\t0\n".utf8))
        #expect(thread.isKernelThread)
        #expect(thread.tracer == nil)
        let zombie = try ProcessStatus(parsing: Array("Name:\tx\nState:\tZ (zombie)\nTgid:\t9\nPPid:\t2\n".utf8))
        #expect(!zombie.isKernelThread)
        #expect(zombie.isEnded)
    }

    @Test func statusWithoutStateIsRefused() {
        let failure = #expect(throws: Failure.self) { try ProcessStatus(parsing: Array("Name:\tx\nTgid:\t1\n".utf8)) }
        #expect(failure?.code == "status-malformed")
    }
}
