// A process to be patched. It prepares itself as its arguments say and then answers one line for each line it reads:
//   verdict N, greet, keep, kept, calls    what the library says (keep: remember the greeting's address; kept: read there)
//   hold, unhold                           a thread enters target_hold and stays there until told
//   load                                   "CALLS BAD" of the threads under load so far
//   blocked                                "RETURNS ERRNO SIGNALS" of the thread in the blocking call
//   leave                                  the handler of --altstack returns
//   fork                                   a child is made and answers from now on
//   exec                                   becomes another program; no answer
//   quit
// Arguments: --threads N (threads under load, with deep stacks), --block CALL, --seccomp kill|errno,
//            --no-restart-filter (kills on restart_syscall), --undumpable, --mdwe, --exit-soon (in the middle of things),
//            --leave-main (the main thread ends, another answers),
//            --churn (threads come and go), --vfork (the main thread waits for a vfork child), --altstack (a thread sits in a handler on its own stack)
#define _GNU_SOURCE
#include "target.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/futex.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/select.h>
#include <sys/sem.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static atomic_long load_calls, load_bad;
static atomic_int blocked_returns, blocked_errno, signals_seen, ready;
static int hold_pipe[2], holding;
static pthread_t hold_thread;
static const char *kept;

// Load: calls the library at the bottom of a deep stack and checks what it says, over and over.
static int __attribute__((noipa)) descend(int depth, unsigned seed) {
    volatile unsigned char frame[1024];
    for (unsigned i = 0; i < sizeof frame; i++) frame[i] = (unsigned char)(seed + i);
    int result = 0;
    if (depth > 0) {
        result = descend(depth - 1, seed + 1);
    } else {
        for (int i = 0; i < 64; i++) {
            int small = target_verdict(5), large = target_verdict(200);
            const char *greeting = target_greeting();
            if (small != 16 || (large != 601 && large != -1) || strncmp(greeting, "greetings from the ", 19)) load_bad++;
            load_calls += 3;
        }
        if (seed % 7 == 0) usleep(200);
    }
    for (unsigned i = 0; i < sizeof frame; i++)
        if (frame[i] != (unsigned char)(seed + i)) load_bad++;
    return result;
}
static void *load(void *argument) {
    unsigned seed = (unsigned)(size_t)argument;
    ready++;
    for (;;) descend(32, seed++);
    return NULL;
}

static void on_signal(int number) {
    (void)number;
    signals_seen++;
}
static int io_uring_ready(void) {
    unsigned char parameters[120] = {0};
    return (int)syscall(425, 4, parameters);
}
static void *block(void *argument) {
    const char *call = argument;
    int pipes[2], sockets[2], queue = semget(IPC_PRIVATE, 1, 0600), epoll = epoll_create1(0), ring = -1;
    uint32_t word = 0;
    if (pipe(pipes) || socketpair(AF_UNIX, SOCK_STREAM, 0, sockets)) exit(3);
    struct timeval minutes = {600, 0};
    struct timespec long_time = {600, 0};
    setsockopt(sockets[0], SOL_SOCKET, SO_RCVTIMEO, &minutes, sizeof minutes);
    struct epoll_event event = {.events = EPOLLIN};
    epoll_ctl(epoll, EPOLL_CTL_ADD, pipes[0], &event);
    struct pollfd fd = {pipes[0], POLLIN, 0};
    struct sembuf take = {0, -1, 0};
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR2);
    char byte;
    if (!strcmp(call, "io_uring_enter") && (ring = io_uring_ready()) < 0) {
        puts("unsupported");
        fflush(stdout);
        exit(0);
    }
    ready++;
    for (;;) {
        long n;
        errno = 0;
        if (!strcmp(call, "epoll_wait")) n = epoll_wait(epoll, &event, 1, -1);
        else if (!strcmp(call, "epoll_wait_timeout")) n = epoll_wait(epoll, &event, 1, 600000);
        else if (!strcmp(call, "recv")) n = recv(sockets[0], &byte, 1, 0);
        else if (!strcmp(call, "sigtimedwait")) n = sigtimedwait(&set, NULL, &long_time);
        else if (!strcmp(call, "semop")) n = semop(queue, &take, 1);
        else if (!strcmp(call, "semtimedop")) n = semtimedop(queue, &take, 1, &long_time);
        else if (!strcmp(call, "io_uring_enter")) n = syscall(426, ring, 0, 1, 1, NULL, 0);
        else if (!strcmp(call, "read")) n = read(pipes[0], &byte, 1);
        else if (!strcmp(call, "futex")) n = syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 0, NULL);
        else if (!strcmp(call, "futex_timeout")) n = syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 0, &long_time);
        else if (!strcmp(call, "nanosleep")) n = nanosleep(&long_time, NULL);
        else if (!strcmp(call, "poll")) n = poll(&fd, 1, 600000);
        else if (!strcmp(call, "select")) { fd_set s; FD_ZERO(&s); FD_SET(pipes[0], &s); n = select(pipes[0] + 1, &s, NULL, NULL, NULL); }
        else if (!strcmp(call, "pause")) n = pause();
        else exit(4);
        blocked_errno = n < 0 ? errno : 0;
        blocked_returns++;
    }
    return NULL;
}

static int stay(void *argument) {
    char byte;
    ready++;
    return read(*(int *)argument, &byte, 1) == 1 ? 1 : -1;
}
static void *hold(void *argument) {
    return (void *)(long)target_hold(stay, argument);
}

static int stay_pipe[2];
static atomic_int stays;
static int stay_here(void *unused) {
    char byte;
    (void)unused;
    ready++;
    while (read(stay_pipe[0], &byte, 1) != 1) {}
    return 1;
}
static void handler_that_stays(int number) {
    (void)number;
    stay_here(NULL);
}
static int raise_inside(void *unused) {
    (void)unused;
    raise(SIGUSR2);
    return 1;
}
// Enters target_hold on its own stack, and there a handler on another stack that does not return.
static void *altstack(void *argument) {
    static char stack[64 << 10];
    stack_t s = {.ss_sp = stack, .ss_size = sizeof stack};
    struct sigaction action = {.sa_handler = handler_that_stays, .sa_flags = SA_ONSTACK};
    (void)argument;
    sigaltstack(&s, NULL);
    sigaction(SIGUSR2, &action, NULL);
    stays = 1;
    target_hold(raise_inside, NULL);
    stays = 0;
    for (;;) pause();
    return NULL;
}

static void filter(int kill, int only_restart) {
    struct sock_filter deny = BPF_STMT(BPF_RET | BPF_K, kill ? SECCOMP_RET_KILL_PROCESS : SECCOMP_RET_ERRNO | EPERM);
    // Everything that allocates or protects memory, or the restart of a call, is denied.
    struct sock_filter memory[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mmap, 3, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mprotect, 2, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_munmap, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        deny,
    };
    struct sock_filter restart[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_restart_syscall, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        deny,
    };
    struct sock_fprog program = {sizeof memory / sizeof *memory, memory};
    if (only_restart) program = (struct sock_fprog){sizeof restart / sizeof *restart, restart};
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program)) exit(5);
}

static void *nothing(void *unused) { return unused; }
static void *churn(void *unused) {
    (void)unused;
    ready++;
    for (;;) {
        pthread_t threads[4];
        for (int i = 0; i < 4; i++)
            if (pthread_create(&threads[i], NULL, nothing, NULL)) exit(9);
        for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
    }
    return NULL;
}

static void *exit_soon(void *unused) {
    (void)unused;
    usleep(1000 + (unsigned)(time(NULL) % 7) * 300);
    _exit(7);
}

static void wait_for_vfork(void) {
    puts("ready");
    fflush(stdout);
    if (vfork() == 0) {
        char byte;
        while (read(0, &byte, 1) == 1 && byte != '\n') {}
        _exit(0);
    }
}

static void *serve(void *unused) {
    static char line[256];
    (void)unused;
    while (fgets(line, sizeof line, stdin)) {
        if (!strncmp(line, "verdict ", 8)) printf("%d\n", target_verdict(atoi(line + 8)));
        else if (!strcmp(line, "greet\n")) puts(target_greeting());
        else if (!strcmp(line, "keep\n")) { kept = target_greeting(); puts("kept"); }
        else if (!strcmp(line, "forget\n")) { kept = NULL; puts("forgotten"); }
        else if (!strcmp(line, "kept\n")) puts(kept);
        else if (!strcmp(line, "calls\n")) printf("%d\n", target_count());
        else if (!strcmp(line, "hold\n")) {
            ready = 0;
            holding = 1;
            pthread_create(&hold_thread, NULL, hold, &hold_pipe[0]);
            while (!ready) usleep(500);
            puts("holding");
        } else if (!strcmp(line, "unhold\n")) {
            void *result = NULL;
            if (write(hold_pipe[1], "x", 1) != 1) exit(6);
            pthread_join(hold_thread, &result);
            printf("%ld\n", (long)result);
        } else if (!strcmp(line, "load\n")) printf("%ld %ld\n", load_calls, load_bad);
        else if (!strcmp(line, "blocked\n")) printf("%d %d %d\n", blocked_returns, blocked_errno, signals_seen);
        else if (!strcmp(line, "leave\n")) {
            if (write(stay_pipe[1], "x", 1) != 1) exit(6);
            while (stays) usleep(500);
            puts("leaving");
        } else if (!strcmp(line, "fork\n")) {
            if (fork()) for (;;) pause();
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            puts("forked");
        } else if (!strcmp(line, "exec\n")) { execlp("sleep", "sleep", "1000", (char *)NULL); exit(8); }
        else if (!strcmp(line, "quit\n")) exit(0);
        else puts("?");
        fflush(stdout);
    }
    exit(0);
}

int main(int argc, char **argv) {
    static int ends, leaves;
    int awaited = 0, kill_filter = -1, restart_filter = 0;
    pthread_t thread;
    struct sigaction action = {.sa_handler = on_signal};
    static char greeting[64];
    setvbuf(stdout, malloc(4096), _IOFBF, 4096);
    setvbuf(stdin, malloc(4096), _IOFBF, 4096);
    sigaction(SIGUSR1, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    if (pipe(hold_pipe) || pipe(stay_pipe)) return 2;
    target_count_from(1000);
    sprintf(greeting, "%.40s", target_greeting()); // binds the import before anything is filtered
    for (int i = 1; i < argc; i++) {
        const char *next = i + 1 < argc ? argv[i + 1] : "";
        if (!strcmp(argv[i], "--threads")) {
            for (int n = atoi(next); n > 0; n--, awaited++) pthread_create(&thread, NULL, load, (void *)(size_t)(n * 1000));
        } else if (!strcmp(argv[i], "--block")) {
            pthread_create(&thread, NULL, block, (void *)next);
            awaited++;
        } else if (!strcmp(argv[i], "--seccomp")) {
            kill_filter = !strcmp(next, "kill");
        } else if (!strcmp(argv[i], "--no-restart-filter")) {
            restart_filter = 1;
        } else if (!strcmp(argv[i], "--undumpable")) {
            prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
        } else if (!strcmp(argv[i], "--mdwe")) {
            if (prctl(65, 1, 0, 0, 0)) { puts("unsupported"); return 0; }
        } else if (!strcmp(argv[i], "--altstack")) {
            pthread_create(&thread, NULL, altstack, NULL);
            awaited++;
        } else if (!strcmp(argv[i], "--churn")) {
            pthread_create(&thread, NULL, churn, NULL);
            awaited++;
        } else if (!strcmp(argv[i], "--leave-main")) {
            leaves = 1;
        } else if (!strcmp(argv[i], "--exit-soon")) {
            ends = 1;
        }
    }
    // Signals are for the threads that wait for them.
    sigset_t mine;
    sigemptyset(&mine);
    sigaddset(&mine, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &mine, NULL);
    while (ready < awaited) usleep(1000);
    ready = 0;
    if (kill_filter >= 0) filter(kill_filter, 0);
    if (restart_filter) filter(1, 1);
    for (int i = 1; i < argc; i++)
        if (!strcmp(argv[i], "--vfork")) wait_for_vfork();
    puts("ready");
    fflush(stdout);
    if (ends) pthread_create(&thread, NULL, exit_soon, NULL);
    if (leaves) {
        pthread_create(&thread, NULL, serve, NULL);
        pthread_exit(NULL);
    }
    serve(NULL);
    return 0;
}
