// Writing where others may write too: see clinux_files.h.
#define _GNU_SOURCE 1
#include "clinux.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

int fother_open_folder_in(const char *root, const char *path) {
    int base = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (base < 0) return -errno;
    struct open_how how = {.flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC, .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS};
    int folder = (int)syscall(SYS_openat2, base, path, &how, sizeof how);
    int error = errno;
    close(base);
    return folder < 0 ? -error : folder;
}

int fother_replace_file(int directory, const char *name, const void *bytes, size_t size, int mode) {
    char temporary[64];
    unsigned long number;
    if (getrandom(&number, sizeof number, 0) != sizeof number) return -EIO;
    snprintf(temporary, sizeof temporary, ".fother-%016lx", number);
    int fd = openat(directory, temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0) return -errno;
    int error = 0;
    for (size_t done = 0; done < size && !error;) {
        ssize_t n = write(fd, (const char *)bytes + done, size - done);
        if (n > 0) done += (size_t)n;
        else if (n == 0 || errno != EINTR) error = n == 0 ? EIO : errno;
    }
    if (!error && fchmod(fd, (mode_t)mode)) error = errno;
    if (close(fd) && !error) error = errno;
    if (!error && renameat(directory, temporary, directory, name)) error = errno;
    if (error) unlinkat(directory, temporary, 0);
    return -error;
}
