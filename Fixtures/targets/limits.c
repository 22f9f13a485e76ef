// A process at a limit. Argument: nothing, or one of
//   as BYTES       RLIMIT_AS leaves so many
//   data BYTES     RLIMIT_DATA leaves so many
//   maps N         vm.max_map_count leaves N mappings
//   locked BYTES   everything is locked, and RLIMIT_MEMLOCK leaves so many; gives up CAP_IPC_LOCK
//   cgroup DIR LEFT LIMIT  enters the memory cgroup in DIR and touches memory until LEFT bytes of its LIMIT are left
// Lines: those of questions.h.
#define _GNU_SOURCE
#include "questions.h"
#include <fcntl.h>
#include <linux/capability.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

static long field(const char *name) {
    static char text[8192];
    int fd = open("/proc/self/status", O_RDONLY);
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    text[n > 0 ? n : 0] = 0;
    char *at = strstr(text, name);
    return at ? atol(at + strlen(name)) << 10 : 0;
}
static long maps(void) {
    static char text[1 << 16];
    long lines = 0;
    int fd = open("/proc/self/maps", O_RDONLY);
    ssize_t n;
    while ((n = read(fd, text, sizeof text)) > 0)
        for (ssize_t i = 0; i < n; i++) lines += text[i] == '\n';
    close(fd);
    return lines;
}
static void limit(int what, long value) {
    struct rlimit l = {(rlim_t)value, (rlim_t)value};
    if (setrlimit(what, &l)) exit(3);
}
static void other(const char *line) {
    (void)line;
    say("?");
}
int main(int argc, char **argv) {
    long n = argc > 2 ? atol(argv[2]) : 0;
    setvbuf(stdout, malloc(4096), _IOFBF, 4096);
    setvbuf(stdin, malloc(4096), _IOFBF, 4096);
    target_greeting();
    if (argc > 2 && !strcmp(argv[1], "as")) limit(RLIMIT_AS, field("VmSize:") + n);
    else if (argc > 2 && !strcmp(argv[1], "data")) limit(RLIMIT_DATA, field("VmData:") + n);
    else if (argc > 2 && !strcmp(argv[1], "locked")) {
        struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
        struct __user_cap_data_struct sets[2];
        if (mlockall(MCL_CURRENT | MCL_FUTURE)) { say("unsupported"); return 0; }
        limit(RLIMIT_MEMLOCK, field("VmLck:") + n);
        syscall(SYS_capget, &header, sets);
        sets[0].effective &= ~(1u << CAP_IPC_LOCK);
        if (syscall(SYS_capset, &header, sets)) return 4;
    } else if (argc > 2 && !strcmp(argv[1], "maps")) {
        int fd = open("/proc/sys/vm/max_map_count", O_RDONLY);
        char text[32] = {0};
        if (read(fd, text, sizeof text - 1) <= 0) return 5;
        close(fd);
        // Neighbours of different protection do not merge.
        long wanted = atol(text) - n - maps();
        char *block = mmap(NULL, (size_t)(wanted + 2) << 12, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (block == MAP_FAILED) return 6;
        for (long i = 1; i < wanted; i += 2) mprotect(block + (i << 12), 4096, PROT_NONE);
    } else if (argc > 3 && !strcmp(argv[1], "cgroup")) {
        char path[4096], text[64];
        sprintf(path, "%s/cgroup.procs", argv[2]);
        int fd = open(path, O_WRONLY);
        if (fd < 0 || write(fd, "0", 1) != 1) { say("unsupported"); return 0; }
        close(fd);
        for (int v2 = 0; v2 < 2; v2++) {
            sprintf(path, "%s/%s", argv[2], v2 ? "memory.current" : "memory.usage_in_bytes");
            if ((fd = open(path, O_RDONLY)) < 0) continue;
            long room = atol(argv[3]), size = 64 << 20, limit_bytes = atol(argv[4]);
            char *block = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
            madvise(block, (size_t)size, MADV_NOHUGEPAGE);
            for (long i = 0; i < size; i += 4096) {
                memset(text, 0, sizeof text);
                if (pread(fd, text, sizeof text - 1, 0) <= 0 || atol(text) + room >= limit_bytes) break;
                block[i] = 1;
            }
            close(fd);
        }
    } else if (argc > 1) return 2;
    serve(other);
    return 0;
}
