// The library comes and goes: it is loaded, unloaded and loaded again, at the same address or another, or twice at once.
// Argument: the folder of libtarget.so and of other.so, a copy of it. Lines:
//   load, unload       dlopen and dlclose of libtarget.so
//   occupy             something else is mapped where it last was, all of it
//   intact             whether that is as it was
//   copy, namespace    a second one: other.so, or libtarget.so in a linker namespace of its own
//   trace              how many frames backtrace(3) sees; it loads an unwinder
//   second N           the verdict of the second one
// and those of questions.h, about the first one.
#define _GNU_SOURCE
#include "questions.h"
#include <dlfcn.h>
#include <execinfo.h>
#include <link.h>
#include <sys/mman.h>

static void *first, *second;
static const char *folder;
static char *place;
enum { occupied_bytes = 0x4000 };
static int is_occupied(void) {
    for (int i = 0; i < occupied_bytes; i++)
        if (place[i] != 0x5a) return 0;
    return 1;
}
static void *call(const char *name) { return dlsym(first, name); }
int target_verdict(int x) { return first ? ((int (*)(int))call("target_verdict"))(x) : 0; }
const char *target_greeting(void) { return first ? ((const char *(*)(void))call("target_greeting"))() : "nothing"; }
int target_count(void) { return first ? ((int (*)(void))call("target_count"))() : 0; }
void target_count_from(int n) { (void)n; }

static void other(const char *line) {
    static char path[4096];
    if (!strcmp(line, "load\n")) {
        sprintf(path, "%s/libtarget.so", folder);
        first = dlopen(path, RTLD_NOW);
        if (first) place = (char *)((struct link_map *)first)->l_addr;
        puts(first ? "loaded" : dlerror());
    } else if (!strcmp(line, "unload\n")) {
        puts(dlclose(first) ? dlerror() : "unloaded");
        first = NULL;
    } else if (!strcmp(line, "occupy\n")) {
        void *p = mmap(place, occupied_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
        if (p == place) memset(p, 0x5a, occupied_bytes);
        puts(p == place ? "occupied" : "not free");
    } else if (!strcmp(line, "intact\n")) {
        puts(is_occupied() ? "intact" : "overwritten");
    } else if (!strcmp(line, "copy\n")) {
        sprintf(path, "%s/other.so", folder);
        second = dlopen(path, RTLD_NOW | RTLD_LOCAL);
        puts(second ? "loaded" : dlerror());
    } else if (!strcmp(line, "namespace\n")) {
        sprintf(path, "%s/libtarget.so", folder);
        second = dlmopen(LM_ID_NEWLM, path, RTLD_NOW);
        puts(second ? "loaded" : dlerror());
    } else if (!strcmp(line, "trace\n")) {
        void *frames[64];
        printf("%d\n", backtrace(frames, 64));
    } else if (!strncmp(line, "second ", 7)) {
        printf("%d\n", ((int (*)(int))dlsym(second, "target_verdict"))(atoi(line + 7)));
    } else puts("?");
    fflush(stdout);
}
int main(int argc, char **argv) {
    if (argc < 2) return 2;
    folder = argv[1];
    serve(other);
    return 0;
}
