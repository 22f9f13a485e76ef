// Files, directories and other processes' memory: see clinux_files.h.
#define _GNU_SOURCE 1
#include "clinux.h"
#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <signal.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>
#include <string.h>
#include <sys/uio.h>
#include <sys/syscall.h>
#include <time.h>

int fother_openat(int directory, const char *path, int flags) {
    int fd = openat(directory, path, flags | O_CLOEXEC, 0600);
    return fd < 0 ? -errno : fd;
}

int fother_lock(int fd) { return flock(fd, LOCK_EX | LOCK_NB) == 0 ? 0 : -errno; }

int fother_close(int fd) { return close(fd) < 0 ? -errno : 0; }

int64_t fother_read(int fd, void *buffer, size_t size) {
    ssize_t n;
    do n = read(fd, buffer, size);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

int64_t fother_read_full(int fd, void *buffer, size_t size) {
    size_t done = 0;
    while (done < size) {
        int64_t n = fother_read(fd, (char *)buffer + done, size - done);
        if (n < 0) return n;
        if (n == 0) break;
        done += (size_t)n;
    }
    return (int64_t)done;
}

int64_t fother_write(int fd, const void *buffer, size_t size) {
    sigset_t pipe_only, before, pending;
    sigemptyset(&pipe_only);
    sigaddset(&pipe_only, SIGPIPE);
    sigpending(&pending);
    pthread_sigmask(SIG_BLOCK, &pipe_only, &before);
    ssize_t n;
    do n = write(fd, buffer, size);
    while (n < 0 && errno == EINTR);
    int error = n < 0 ? errno : 0;
    if (error == EPIPE && !sigismember(&pending, SIGPIPE)) {
        struct timespec none = {0, 0};
        while (sigtimedwait(&pipe_only, NULL, &none) < 0 && errno == EINTR) {}
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return error ? -error : n;
}

int64_t fother_pread(int fd, void *buffer, size_t size, uint64_t offset) {
    size_t done = 0;
    while (done < size) {
        ssize_t n = pread(fd, (char *)buffer + done, size - done, (off_t)(offset + done));
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return done ? (int64_t)done : -errno;
        if (n == 0) break;
        done += (size_t)n;
    }
    return (int64_t)done;
}

int64_t fother_pwrite(int fd, const void *buffer, size_t size, uint64_t offset) {
    size_t done = 0;
    while (done < size) {
        ssize_t n = pwrite(fd, (const char *)buffer + done, size - done, (off_t)(offset + done));
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return done ? (int64_t)done : -errno;
        if (n == 0) break;
        done += (size_t)n;
    }
    return (int64_t)done;
}

int64_t fother_readlinkat(int directory, const char *path, char *buffer, size_t size) {
    ssize_t n = readlinkat(directory, path, buffer, size);
    return n < 0 ? -errno : n;
}

struct entry {
    uint64_t inode;
    int64_t offset;
    unsigned short length;
    unsigned char type;
    char name[];
};

int64_t fother_list_numbers(int directory, int32_t *numbers, size_t capacity) {
    _Alignas(8) char buffer[8192];
    int64_t count = 0;
    if (lseek(directory, 0, SEEK_SET) < 0) return -errno;
    for (;;) {
        long n = syscall(SYS_getdents64, directory, buffer, sizeof buffer);
        if (n < 0) return -errno;
        if (n == 0) return count;
        for (long at = 0; at < n;) {
            struct entry *e = (struct entry *)(buffer + at);
            at += e->length;
            int64_t value = 0;
            const char *c = e->name;
            while (*c >= '0' && *c <= '9' && value <= INT32_MAX) value = value * 10 + (*c++ - '0');
            if (*c || c == e->name || value > INT32_MAX) continue;
            if ((size_t)count < capacity) numbers[count] = (int32_t)value;
            count++;
        }
    }
}

int64_t fother_links(int fd) {
    struct stat s;
    return fstat(fd, &s) < 0 ? -errno : (int64_t)s.st_nlink;
}

int64_t fother_process_read(int pid, uint64_t address, void *buffer, size_t size) {
    struct iovec local = {buffer, size}, remote = {(void *)address, size};
    ssize_t n = process_vm_readv(pid, &local, 1, &remote, 1, 0);
    return n < 0 ? -errno : n;
}

int64_t fother_process_read_many(int pid, const uint64_t *addresses, const uint64_t *sizes, size_t count, void *buffer) {
    struct iovec remote[64], local = {buffer, 0};
    if (count > 64) return -EINVAL;
    for (size_t i = 0; i < count; i++) {
        remote[i] = (struct iovec){(void *)addresses[i], sizes[i]};
        local.iov_len += sizes[i];
    }
    ssize_t n = process_vm_readv(pid, &local, 1, remote, count, 0);
    return n < 0 ? -errno : n;
}

int64_t fother_find(const void *bytes, size_t size, const void *needle, size_t needle_size) {
    const char *at = memmem(bytes, size, needle, needle_size);
    return at ? at - (const char *)bytes : -ENOENT;
}

int64_t fother_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

int fother_sleep(int64_t nanoseconds) {
    struct timespec t = {nanoseconds / 1000000000, nanoseconds % 1000000000};
    return -clock_nanosleep(CLOCK_MONOTONIC, 0, &t, NULL);
}
