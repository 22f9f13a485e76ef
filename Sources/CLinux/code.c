// Files that hold code for several processes: see clinux_code.h.
#define _GNU_SOURCE 1
#include "clinux.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

#ifndef RESOLVE_CACHED
#define RESOLVE_CACHED 0x20
#endif

static const char *const selinux = "security.selinux";

int64_t fother_label(const char *path, char *label, size_t size) {
    if (size == 0) return -EINVAL;
    ssize_t n = getxattr(path, selinux, label, size - 1);
    if (n < 0) return -errno;
    label[n] = 0;
    return n;
}

static int has_bytes(int fd, const char *bytes, size_t size) {
    char piece[4096];
    size_t done = 0;
    while (done < size) {
        ssize_t n = pread(fd, piece, sizeof piece, (off_t)done);
        if (n <= 0 || (size_t)n > size - done || memcmp(piece, bytes + done, (size_t)n) != 0) return 0;
        done += (size_t)n;
    }
    return 1;
}

static int has_label(int fd, const char *label) {
    char found[256];
    ssize_t n = fgetxattr(fd, selinux, found, sizeof found - 1);
    if (n < 0) return label == NULL;
    found[n] = 0;
    return label != NULL && strcmp(found, label) == 0;
}

// From here on nobody can change it, whoever they are.
static int seal(int fd) {
    int flags;
    if (ioctl(fd, FS_IOC_GETFLAGS, &flags) != 0) return -errno;
    if (flags & FS_IMMUTABLE_FL) return 0;
    flags |= FS_IMMUTABLE_FL;
    return ioctl(fd, FS_IOC_SETFLAGS, &flags) == 0 ? 0 : -errno;
}

// Sealed first, so that what is compared is what stays.
static int accept_file(int fd, const void *bytes, size_t size, const char *label, struct fother_file_id *id) {
    struct stat s;
    if (fstat(fd, &s) != 0) return -errno;
    if (!S_ISREG(s.st_mode) || s.st_uid != geteuid() || (s.st_mode & 0777) != 0444 || s.st_size != (off_t)size) return -EBADMSG;
    int error = seal(fd);
    if (error != 0) return error;
    if (!has_bytes(fd, bytes, size) || !has_label(fd, label)) return -EBADMSG;
    id->device = s.st_dev;
    id->inode = s.st_ino;
    return 0;
}

static int make(int folder, const char *name, const void *bytes, size_t size, const char *label) {
    char temporary[64];
    snprintf(temporary, sizeof temporary, "new.%ld", syscall(SYS_gettid));
    unlinkat(folder, temporary, 0);
    int fd = openat(folder, temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0400);
    if (fd < 0) return -errno;
    int error = 0;
    size_t done = 0;
    while (done < size && error == 0) {
        ssize_t n = write(fd, (const char *)bytes + done, size - done);
        if (n > 0) done += (size_t)n;
        else if (n == 0 || errno != EINTR) error = n == 0 ? -ENOSPC : -errno;
    }
    if (error == 0 && label != NULL && fsetxattr(fd, selinux, label, strlen(label), 0) != 0) error = -errno;
    if (error == 0 && (fchmod(fd, 0444) != 0 || fsync(fd) != 0)) error = -errno;
    close(fd);
    // Somebody else may have been faster; theirs is as good.
    if (error == 0 && linkat(folder, temporary, folder, name, 0) != 0 && errno != EEXIST) error = -errno;
    unlinkat(folder, temporary, 0);
    return error;
}

int fother_code_file(int folder, const char *name, const void *bytes, size_t size, const char *label, struct fother_file_id *id) {
    int fd = openat(folder, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT) {
        int error = make(folder, name, bytes, size, label);
        if (error != 0) return error;
        fd = openat(folder, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    }
    if (fd < 0) return -errno;
    int error = accept_file(fd, bytes, size, label, id);
    close(fd);
    // Without the flag it is of no use to anybody.
    if (error == -EOPNOTSUPP || error == -ENOTTY) unlinkat(folder, name, 0);
    return error;
}

int fother_open_code_folder(const char *path) {
    if (mkdir(path, 0755) != 0 && errno != EEXIST) return -errno;
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) return -errno;
    struct stat s;
    if (fstat(fd, &s) == 0 && s.st_uid == geteuid() && (s.st_mode & 022) == 0 && fchmod(fd, 0755) == 0) return fd;
    close(fd);
    return -EPERM;
}

static int compare(int fd, struct fother_file_id id) {
    if (fd < 0) return -errno;
    struct stat s;
    int error = fstat(fd, &s) == 0 ? 0 : -errno;
    close(fd);
    if (error != 0) return error;
    return s.st_dev == id.device && s.st_ino == id.inode ? 0 : -ENOENT;
}

int fother_names_file(const char *root, const char *path, struct fother_file_id id) {
    int folder = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0) return -errno;
    struct open_how how = {
        .flags = O_PATH | O_CLOEXEC | O_NOFOLLOW, .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | RESOLVE_CACHED};
    int fd = (int)syscall(SYS_openat2, folder, path, &how, sizeof how);
    int error = errno;
    close(folder);
    errno = error;
    return compare(fd, id);
}

int fother_is_file(const char *path, struct fother_file_id id) { return compare(open(path, O_PATH | O_CLOEXEC), id); }
