// Starting and ending other programs.
#ifndef FOTHER_CLINUX_SPAWN_H
#define FOTHER_CLINUX_SPAWN_H
#include <stddef.h>
#include <stdint.h>

/// posix_spawnp(3) with an empty signal mask and default signal dispositions. `arguments` and `environment` are
/// NUL-terminated strings one after another, `*_size` bytes in all; a null environment means the caller's own, a
/// null directory the caller's own. `standard` holds the child's descriptors 0, 1 and 2; every other one that is
/// not O_CLOEXEC is inherited. Returns the process's id. Needs glibc 2.29.
int fother_spawn(const char *arguments, size_t arguments_size, const char *environment, size_t environment_size,
                 const char *directory, const int standard[3]);
/// pipe2(2) with O_CLOEXEC.
int fother_pipe(int ends[2]);
/// Waits until a descriptor is ready: bit 0 `in` may be written, bits 1 and 2 `out`, `err` may be read or are at
/// their end. Negative descriptors are ignored. 0 when `milliseconds` passed.
int fother_poll(int in, int out, int err, int milliseconds);
/// waitpid(2): the id and `*status`, or 0 when WNOHANG is among the options and nothing happened.
int fother_waitpid(int pid, int *status, int options);
int fother_kill(int pid, int signal);
int fother_set_nonblocking(int fd);

/// What a wait status says. `kind` 0 exited with `value`, 1 killed by signal `value`, 2 stopped by signal `value`
/// with ptrace `event` (0 when none), 3 continued.
struct fother_status {
    int kind, value, event;
};
struct fother_status fother_decode_status(int status);
#endif
