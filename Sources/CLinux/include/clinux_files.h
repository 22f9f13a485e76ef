// Files, directories and other processes' memory.
#ifndef FOTHER_CLINUX_FILES_H
#define FOTHER_CLINUX_FILES_H
#include <stddef.h>
#include <stdint.h>

/// openat(2) with O_CLOEXEC; `directory` may be AT_FDCWD.
int fother_openat(int directory, const char *path, int flags);
int fother_close(int fd);
/// Reads `count` ranges of a process, one behind the other into `buffer`. Returns the number of bytes.
int64_t fother_process_read_many(int pid, const uint64_t *addresses, const uint64_t *sizes, size_t count, void *buffer);
/// The index of the first of `words[from...]` that is at least `low` and at most `low + span`; `count` when none is.
size_t fother_first_between(const uint64_t *words, size_t from, size_t count, uint64_t low, uint64_t span);
/// flock(2), exclusive and without waiting: -EWOULDBLOCK when somebody else holds it. It goes with the descriptor.
int fother_lock(int fd);
/// Opens a regular file for reading; -EINVAL for anything else, which is not opened at all: opening a pipe can block,
/// opening a device can act.
int fother_open_regular(const char *path);
/// The same for a path as a process with that root directory means it: no symbolic link leads out of `root`. Needs
/// openat2, kernel 5.6 (-ENOSYS before).
int fother_open_regular_in(const char *root, const char *path);
/// Opens a directory, to be used with fother_replace_file, as a process with the root directory `root` means `path`.
/// Needs openat2, kernel 5.6 (-ENOSYS before).
int fother_open_folder_in(const char *root, const char *path);
/// Puts a file of this user's with these bytes and this mode in the place of whatever `name` was in `directory`. A link
/// there is replaced, not followed; nobody sees half of it.
int fother_replace_file(int directory, const char *name, const void *bytes, size_t size, int mode);
/// Reads until `size` bytes or the end of the file; a short count means the end.
int64_t fother_read_full(int fd, void *buffer, size_t size);
/// One read(2), retried on EINTR.
int64_t fother_read(int fd, void *buffer, size_t size);
/// One write(2), retried on EINTR; EPIPE is returned and SIGPIPE never raised.
int64_t fother_write(int fd, const void *buffer, size_t size);
/// Reads or writes at `offset` until done; a short count is where the first unreadable page begins. On
/// /proc/PID/mem an `offset` is an address, and 0 at once means that the address space is gone.
int64_t fother_pread(int fd, void *buffer, size_t size, uint64_t offset);
int64_t fother_pwrite(int fd, const void *buffer, size_t size, uint64_t offset);
int64_t fother_readlinkat(int directory, const char *path, char *buffer, size_t size);
/// fstat(2): the number of links.
int64_t fother_links(int fd);
/// Stores the entries of a directory whose names are decimal numbers, in the directory's order, from its
/// beginning. Returns how many there are, which may exceed `capacity`: then only `capacity` are stored.
int64_t fother_list_numbers(int directory, int32_t *numbers, size_t capacity);
/// process_vm_readv(2) of one range: cheaper than /proc/PID/mem for ordinary readable pages.
int64_t fother_process_read(int pid, uint64_t address, void *buffer, size_t size);
/// Where the first `needle_size` bytes equal to `needle` begin in `bytes`, or -ENOENT.
int64_t fother_find(const void *bytes, size_t size, const void *needle, size_t needle_size);
/// CLOCK_MONOTONIC in nanoseconds.
int64_t fother_now(void);
int fother_sleep(int64_t nanoseconds);
#endif
