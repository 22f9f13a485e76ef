// A process that holds a library and does what it is told: calls its functions, makes room, writes bytes. It lets a test
// see what a patch does to a program, and that it does what the fixed build does, without the applier.

import ELF
import Foundation
import LivePatch
import MachineCode
import ProcessControl
import Testing

final class Host: Sendable {
    let workshop: Workshop
    let child: ChildProcess
    let bias: LoadBias

    /// Starts a process with the library at `path` loaded.
    init(_ workshop: Workshop, _ path: String) throws {
        self.workshop = workshop
        if !FileManager.default.fileExists(atPath: workshop.path + "/host") {
            _ = try workshop.write("host.c", Self.source)
            _ = try ChildProcess.runChecked(["gcc", "-O1", "-w", "host.c", "-o", "host.new"], directory: workshop.path)
            try FileManager.default.moveItem(atPath: workshop.path + "/host.new", toPath: workshop.path + "/host")
        }
        child = try ChildProcess([workshop.path + "/host", path], input: .pipe, output: .pipe)
        let line = try #require(try child.readLine(), "the host did not start")
        bias = LoadBias(try #require(UInt64(line, radix: 16), "the host said \(line)"))
    }

    private func ask(_ line: String) throws -> String {
        try child.write(line + "\n")
        return try #require(try child.readLine(), "the host died at: \(line.prefix(100))")
    }

    /// Calls `long name(long, long)`.
    func call(_ name: String, _ a: Int = 0, _ b: Int = 0) throws -> Int { try #require(Int(try ask("call \(name) \(a) \(b)"))) }

    /// Calls `const char *name(long, long)`.
    func text(_ name: String, _ a: Int = 0, _ b: Int = 0) throws -> String { try ask("text \(name) \(a) \(b)") }

    private func write(_ address: RuntimeAddress, _ bytes: [UInt8]) throws {
        for at in stride(from: 0, to: bytes.count, by: 1024) {
            _ = try ask("write \(String(address.value + UInt64(at), radix: 16)) \(hexDigits(bytes[at..<min(bytes.count, at + 1024)]))")
        }
    }

    /// Links the patch for this process, writes it and its jumps. The bytes at every site must be the expected ones.
    func apply(_ file: [UInt8]) throws {
        let patch = try LivePatch(parsing: file, name: "case.fother")
        let size = PatchLayout(patch.contents).size
        let base = RuntimeAddress(try #require(UInt64(try ask("room \(size)"), radix: 16)))
        var imports: [String: RuntimeAddress] = [:]
        for name in patch.contents.imports {
            let plain = name.split(separator: "@").first.map(String.init) ?? name
            imports[name] = RuntimeAddress(try #require(UInt64(try ask("symbol \(plain)"), radix: 16)))
        }
        let planned = try patch.plan(bias: bias, base: base, imports: imports)
        var header = planned.header
        header.isCommitted = true
        try write(base, try header.encode())
        try write(base + planned.layout.text.lowerBound, planned.text)
        try write(base + planned.layout.readOnly.lowerBound, planned.readOnly)
        try write(base + planned.layout.data.lowerBound, planned.data)
        if let block = planned.registration?.block {
            _ = try ask(
                "frames \(String(planned.unwind.lowerBound.value, radix: 16)) \(String((block + RegistrationStub.Block.objectOffset).value, radix: 16))"
            )
        }
        for site in planned.sites {
            #expect(try ask("read \(String(site.address.value, radix: 16)) \(site.old.count)") == hexDigits(site.old), "\(site.function)")
            try write(site.address, site.new)
        }
    }

    private static let source = """
        #define _GNU_SOURCE
        #include <dlfcn.h>
        #include <link.h>
        #include <stdio.h>
        #include <string.h>
        #include <sys/mman.h>
        static char line[8192];
        int main(int argc, char **argv) {
            setvbuf(stdout, 0, _IOLBF, 0);
            void *lib = dlopen(argv[1], RTLD_NOW);
            if (!lib) { printf("%s\\n", dlerror()); return 1; }
            struct link_map *map;
            dlinfo(lib, RTLD_DI_LINKMAP, &map);
            printf("%lx\\n", (long)map->l_addr);
            while (fgets(line, sizeof line, stdin)) {
                char name[256];
                long a = 0, b = 0;
                unsigned long at, size;
                int used;
                if (sscanf(line, "call %255s %ld %ld", name, &a, &b) == 3) {
                    long (*f)(long, long) = dlsym(lib, name);
                    if (f) printf("%ld\\n", f(a, b)); else printf("no %s\\n", name);
                } else if (sscanf(line, "text %255s %ld %ld", name, &a, &b) == 3) {
                    const char *(*f)(long, long) = dlsym(lib, name);
                    printf("%s\\n", f ? f(a, b) : "no such function");
                } else if (sscanf(line, "room %lu", &size) == 1) {
                    void *p = MAP_FAILED;
                    for (at = (map->l_addr & ~0xffffUL) - ((size + 0xffff) & ~0xffffUL); p == MAP_FAILED; at -= 0x10000)
                        p = mmap((void *)at, size, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
                    printf("%lx\\n", (long)p);
                } else if (sscanf(line, "symbol %255s", name) == 1) {
                    printf("%lx\\n", (long)dlsym(lib, name));
                } else if (sscanf(line, "frames %lx %lx", &at, &size) == 2) {
                    void (*tell)(const void *, void *) = dlsym(lib, "__register_frame_info");
                    if (tell) tell((void *)at, (void *)size);
                    printf("ok\\n");
                } else if (sscanf(line, "read %lx %lu", &at, &size) == 2) {
                    for (unsigned long i = 0; i < size; i++) printf("%02x", ((unsigned char *)at)[i]);
                    printf("\\n");
                } else if (sscanf(line, "write %lx %n", &at, &used) == 1) {
                    size = (strlen(line + used) - 1) / 2;
                    unsigned long first = at & ~4095UL, end = (at + size + 4095) & ~4095UL;
                    mprotect((void *)first, end - first, PROT_READ | PROT_WRITE | PROT_EXEC);
                    for (unsigned long i = 0; i < size; i++) {
                        unsigned byte;
                        sscanf(line + used + 2 * i, "%2x", &byte);
                        ((volatile unsigned char *)at)[i] = byte;
                    }
                    printf("ok\\n");
                } else printf("what?\\n");
            }
            return 0;
        }
        """
}
