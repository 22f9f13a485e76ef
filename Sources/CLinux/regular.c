// Opening only what is a regular file: see clinux_files.h.
#define _GNU_SOURCE 1
#include "clinux.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

// O_PATH names a file without opening it: opening a device can already do something.
static int reopen_regular(int named) {
    if (named < 0) return -errno;
    struct stat s;
    char path[64];
    int result = -EINVAL;
    if (fstat(named, &s) == 0 && S_ISREG(s.st_mode)) {
        snprintf(path, sizeof path, "/proc/self/fd/%d", named);
        result = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
        if (result < 0) result = -errno;
    }
    close(named);
    return result;
}

int fother_open_regular(const char *path) { return reopen_regular(open(path, O_PATH | O_CLOEXEC)); }

int fother_open_regular_in(const char *root, const char *path) {
    int folder = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0) return -errno;
    struct open_how how = {.flags = O_PATH | O_CLOEXEC, .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS};
    int named = (int)syscall(SYS_openat2, folder, path, &how, sizeof how);
    int error = errno;
    close(folder);
    errno = error;
    return reopen_regular(named);
}
