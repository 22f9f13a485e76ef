// Starting and ending other programs: see clinux_spawn.h.
#define _GNU_SOURCE 1
#include "clinux.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>
#include <poll.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>

extern char **environ;

/// A null-terminated vector of pointers to the strings packed one after another, or null without memory.
static char **vector(const char *packed, size_t size) {
    size_t count = 0;
    for (size_t i = 0; i < size; i++) count += packed[i] == 0;
    char **strings = calloc(count + 1, sizeof *strings);
    if (!strings) return NULL;
    for (size_t i = 0, n = 0; n < count; n++) {
        strings[n] = (char *)packed + i;
        i += strlen(packed + i) + 1;
    }
    return strings;
}

int fother_spawn(const char *arguments, size_t arguments_size, const char *environment, size_t environment_size,
                 const char *directory, const int standard[3]) {
    if (!arguments_size || arguments[arguments_size - 1]) return -EINVAL;
    if (environment && environment_size && environment[environment_size - 1]) return -EINVAL;
    char **argv = vector(arguments, arguments_size);
    char **envp = environment ? vector(environment, environment_size) : environ;
    int error = argv && envp ? 0 : ENOMEM;
    posix_spawnattr_t attributes;
    posix_spawn_file_actions_t actions;
    posix_spawnattr_init(&attributes);
    posix_spawn_file_actions_init(&actions);
    sigset_t none, all;
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &all);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    if (!error && directory) error = posix_spawn_file_actions_addchdir_np(&actions, directory);
    for (int i = 0; i < 3 && !error; i++) error = posix_spawn_file_actions_adddup2(&actions, standard[i], i);
    pid_t pid = 0;
    // Swift's runtime gives its worker threads priorities of their own: a child gets the program's, as whoever started it asked for.
    int own = getpriority(PRIO_PROCESS, 0), asked = getpriority(PRIO_PROCESS, getpid());
    if (own != asked) setpriority(PRIO_PROCESS, 0, asked);
    if (!error) error = posix_spawnp(&pid, argv[0], &actions, &attributes, argv, envp);
    if (own != asked) setpriority(PRIO_PROCESS, 0, own);
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
    free(argv);
    if (environment) free(envp);
    return error ? -error : pid;
}

int fother_pipe(int ends[2]) { return pipe2(ends, O_CLOEXEC) < 0 ? -errno : 0; }

int fother_poll(int in, int out, int err, int milliseconds) {
    struct pollfd fds[3] = {{in, POLLOUT, 0}, {out, POLLIN, 0}, {err, POLLIN, 0}};
    int n;
    do n = poll(fds, 3, milliseconds);
    while (n < 0 && errno == EINTR);
    if (n < 0) return -errno;
    return (fds[0].revents ? 1 : 0) | (fds[1].revents ? 2 : 0) | (fds[2].revents ? 4 : 0);
}

int fother_waitpid(int pid, int *status, int options) {
    int n = waitpid(pid, status, options);
    return n < 0 ? -errno : n;
}

int fother_kill(int pid, int signal) { return kill(pid, signal) < 0 ? -errno : 0; }

int fother_set_nonblocking(int fd) {
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0) return -errno;
    return 0;
}

struct fother_status fother_decode_status(int status) {
    if (WIFEXITED(status)) return (struct fother_status){0, WEXITSTATUS(status), 0};
    if (WIFSIGNALED(status)) return (struct fother_status){1, WTERMSIG(status), 0};
    if (WIFSTOPPED(status)) return (struct fother_status){2, WSTOPSIG(status), status >> 16};
    return (struct fother_status){3, 0, 0};
}
