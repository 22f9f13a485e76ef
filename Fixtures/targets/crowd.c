// A process in which everything happens at once while it is patched and Fother is killed: crowd many|single
// Many threads: hot callers below deep stacks; others that a storm of timer signals hits inside the library, the handlers calling it
// too, on the thread's stack and on alternate ones; one that holds known values in all vector registers, one in all general registers,
// flags and red zone; waits of many kinds, for ever and for a millisecond; forks, whose children check their snapshot;
// threads that come and go, and threads that are cancelled. Single: one thread does the same in turn.
// It answers a line for each line it reads: verdict N, greet, and counts:
//   "CALLS BAD RETURNS APART FORKS STORMS CANCELLED KEPT"
//   BAD: wrong answers, registers or snapshots. RETURNS: waits that returned and should not have. APART: EINTR of calls that
//   the kernel does not restart by itself (epoll_wait, sigtimedwait). The others must grow.
#define _GNU_SOURCE
#include "target.h"
#include <errno.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static atomic_long calls, bad, returns, apart, forks, storms, cancelled, kept;
static atomic_int ready;
static int is_single;

static void use_library(void) {
    int small = target_verdict(5), large = target_verdict(200);
    const char *greeting = target_greeting();
    if (small != 16 || (large != 601 && large != -1) || strncmp(greeting, "greetings from the ", 19)) bad++;
    calls += 3;
}

static int __attribute__((noipa)) descend(int depth, unsigned seed) {
    volatile unsigned char frame[1024];
    for (unsigned i = 0; i < sizeof frame; i++) frame[i] = (unsigned char)(seed + i);
    int result = depth;
    if (depth > 0) result += descend(depth - 1, seed + 1);
    else
        for (int i = 0; i < 16; i++) use_library();
    for (unsigned i = 0; i < sizeof frame; i++)
        if (frame[i] != (unsigned char)(seed + i)) bad++;
    return result;
}
static void *hot(void *argument) {
    unsigned seed = (unsigned)(uintptr_t)argument;
    ready++;
    for (;;) {
        descend(32, seed++);
        usleep(1000);
    }
    return NULL;
}

// Signals

static void on_storm(int number) {
    int error = errno;
    (void)number;
    use_library();
    storms++;
    errno = error;
}
static void start_storm(int number, int microseconds) {
    struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = number};
    event._sigev_un._tid = (int)syscall(SYS_gettid);
    struct itimerspec every = {.it_interval = {0, microseconds * 1000}, .it_value = {0, microseconds * 1000}};
    timer_t timer;
    sigset_t mine;
    sigemptyset(&mine);
    sigaddset(&mine, number);
    if (timer_create(CLOCK_MONOTONIC, &event, &timer) || timer_settime(timer, 0, &every, NULL)) exit(3);
    pthread_sigmask(SIG_UNBLOCK, &mine, NULL);
}
static void have_alternate_stack(void) {
    stack_t stack = {.ss_sp = malloc(64 << 10), .ss_size = 64 << 10};
    if (sigaltstack(&stack, NULL)) exit(3);
}
static void *stormed(void *argument) {
    int number = (int)(intptr_t)argument;
    if (number == SIGUSR2) have_alternate_stack();
    start_storm(number, 500);
    return hot(argument);
}

// Registers

static void keep_vectors(unsigned char seed) {
    static const int loops = 20000;
    unsigned char in[16][32], out[16][32];
    for (int i = 0; i < 16; i++) memset(in[i], seed + i, 32);
    __asm__ volatile(
        ".irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n vmovdqu \\n*32(%0), %%ymm\\n\n .endr\n"
        "1: dec %2\n jnz 1b\n"
        "mov $24, %%eax\n syscall\n" // sched_yield: stopped in a call as well
        ".irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n vmovdqu %%ymm\\n, \\n*32(%1)\n .endr\n vzeroupper\n"
        :
        : "r"(in), "r"(out), "r"((long)loops)
        : "rax", "rcx", "r11", "memory", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10",
          "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
    if (memcmp(in, out, sizeof in)) bad++;
    kept++;
}

// Returns 0 when all general registers, the carry flag and the red zone are as they were after a while.
int keep_registers(void);
__asm__(
    ".local keep_counter\n.comm keep_counter,8,8\n"
    ".text\n.type keep_registers,@function\nkeep_registers:\n.cfi_startproc\n"
    "push %rbx\npush %rbp\npush %r12\npush %r13\npush %r14\npush %r15\n"
    "movq $20000, keep_counter(%rip)\n"
    ".irp n,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n movq $0x5a5a0000+\\n, -\\n*8(%rsp)\n .endr\n"
    "mov $0x11110001,%rax\nmov $0x11110002,%rbx\nmov $0x11110003,%rcx\nmov $0x11110004,%rdx\nmov $0x11110005,%rsi\n"
    "mov $0x11110006,%rdi\nmov $0x11110007,%rbp\nmov $0x11110008,%r8\nmov $0x11110009,%r9\nmov $0x1111000a,%r10\n"
    "mov $0x1111000b,%r11\nmov $0x1111000c,%r12\nmov $0x1111000d,%r13\nmov $0x1111000e,%r14\nmov $0x1111000f,%r15\n"
    "stc\n1: decq keep_counter(%rip)\njnz 1b\njnc 2f\n" // dec leaves the carry
    "cmp $0x11110001,%rax\njne 2f\ncmp $0x11110002,%rbx\njne 2f\ncmp $0x11110003,%rcx\njne 2f\ncmp $0x11110004,%rdx\njne 2f\n"
    "cmp $0x11110005,%rsi\njne 2f\ncmp $0x11110006,%rdi\njne 2f\ncmp $0x11110007,%rbp\njne 2f\ncmp $0x11110008,%r8\njne 2f\n"
    "cmp $0x11110009,%r9\njne 2f\ncmp $0x1111000a,%r10\njne 2f\ncmp $0x1111000b,%r11\njne 2f\ncmp $0x1111000c,%r12\njne 2f\n"
    "cmp $0x1111000d,%r13\njne 2f\ncmp $0x1111000e,%r14\njne 2f\ncmp $0x1111000f,%r15\njne 2f\n"
    ".irp n,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n cmpq $0x5a5a0000+\\n, -\\n*8(%rsp)\n jne 2f\n .endr\n"
    "xor %eax,%eax\njmp 3f\n2: mov $1,%eax\n"
    "3: pop %r15\npop %r14\npop %r13\npop %r12\npop %rbp\npop %rbx\nret\n.cfi_endproc\n.size keep_registers,.-keep_registers\n");

static void *keep(void *which) {
    ready++;
    for (unsigned char seed = 1;; seed++) {
        if (which) keep_vectors(seed);
        else {
            bad += keep_registers();
            kept++;
        }
        if (seed % 4 == 0) usleep(1000);
    }
    return NULL;
}

// Waits

enum wait { READ, FUTEX, NANOSLEEP, POLL, SELECT, PAUSE, EPOLL, SIGTIMEDWAIT, kinds };
static void wait_once(enum wait kind, int pipe, int epoll, long milliseconds) {
    struct timespec t = {milliseconds / 1000, milliseconds % 1000 * 1000000};
    struct timeval v = {milliseconds / 1000, milliseconds % 1000 * 1000};
    struct pollfd fd = {pipe, POLLIN, 0};
    struct epoll_event event;
    fd_set set;
    sigset_t none;
    uint32_t word = 0;
    char byte;
    long n = 0;
    errno = 0;
    FD_ZERO(&set);
    FD_SET(pipe, &set);
    sigemptyset(&none);
    sigaddset(&none, SIGUSR1);
    switch (kind) {
    case READ: n = read(pipe, &byte, 1); break;
    case FUTEX: n = syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 0, &t); break;
    case NANOSLEEP: n = nanosleep(&t, NULL); break;
    case POLL: n = poll(&fd, 1, (int)milliseconds); break;
    case SELECT: n = select(pipe + 1, &set, NULL, NULL, &v); break;
    case PAUSE: n = pause(); break;
    case EPOLL: n = epoll_wait(epoll, &event, 1, (int)milliseconds); break;
    case SIGTIMEDWAIT: n = sigtimedwait(&none, NULL, &t); break;
    default: exit(4);
    }
    int isInTime = n == 0 || (n < 0 && (errno == ETIMEDOUT || errno == EAGAIN));
    if (milliseconds < 1000 && isInTime) return;
    if (kind == EPOLL || kind == SIGTIMEDWAIT) {
        if (n < 0 && errno == EINTR) apart++;
        else returns++;
    } else {
        returns++;
    }
}
static void *wait_always(void *argument) {
    int kind = (int)(intptr_t)argument, isShort = kind >= kinds, pipes[2], epoll = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN};
    if (pipe(pipes) || epoll_ctl(epoll, EPOLL_CTL_ADD, pipes[0], &event)) exit(3);
    ready++;
    for (;;) wait_once(kind % kinds, pipes[0], epoll, isShort ? 2 : 6000000);
    return NULL;
}

// Forks: what the child runs cannot change any more, so its answers must be of one build.

static void fork_once(void) {
    pid_t child = fork();
    if (child < 0) exit(3);
    if (child == 0) {
        for (int i = 0; i < 3; i++) {
            int large = target_verdict(200), isNew = !strcmp(target_greeting(), "greetings from the fixed build");
            if (target_verdict(5) != 16 || large != (isNew ? -1 : 601)) _exit(1);
        }
        _exit(0);
    }
    int status;
    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR) exit(3);
        else if (!is_single) returns++; // no signal is for this thread
    if (status) bad++;
    forks++;
}
static void *fork_always(void *unused) {
    (void)unused;
    ready++;
    for (;;) {
        fork_once();
        usleep(3000);
    }
    return NULL;
}

// Threads

static void *nothing(void *unused) { return unused; }
static void *come_and_go(void *unused) {
    (void)unused;
    ready++;
    for (;;) {
        pthread_t threads[4];
        for (int i = 0; i < 4; i++)
            if (pthread_create(&threads[i], NULL, nothing, NULL)) exit(9);
        for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
        usleep(1000);
    }
    return NULL;
}
static void *be_cancelled(void *argument) {
    int *pipe = argument;
    char byte;
    for (;;) {
        use_library();
        if (read(pipe[0], &byte, 1) == 1) continue;
    }
    return NULL;
}
static void *cancel_always(void *unused) {
    (void)unused;
    int pipes[2];
    if (pipe(pipes)) exit(3);
    ready++;
    for (unsigned round = 0;; round++) {
        pthread_t thread;
        void *result;
        if (pthread_create(&thread, NULL, be_cancelled, pipes)) exit(9);
        usleep(round % 5 * 300);
        pthread_cancel(thread);
        pthread_join(thread, &result);
        if (result != PTHREAD_CANCELED) bad++;
        cancelled++;
    }
    return NULL;
}

static void answer(void) {
    static char line[256];
    if (!fgets(line, sizeof line, stdin)) exit(0);
    if (!strncmp(line, "verdict ", 8)) printf("%d\n", target_verdict(atoi(line + 8)));
    else if (!strcmp(line, "greet\n")) puts(target_greeting());
    else if (!strcmp(line, "counts\n"))
        printf("%ld %ld %ld %ld %ld %ld %ld %ld\n", calls, bad, returns, apart, forks, storms, cancelled, kept);
    else puts("?");
    fflush(stdout);
}

static int awaited;
static void start(void *(*role)(void *), int argument) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, role, (void *)(intptr_t)argument)) exit(2);
    awaited++;
}

int main(int argc, char **argv) {
    is_single = argc > 1 && !strcmp(argv[1], "single");
    struct sigaction action = {.sa_handler = on_storm, .sa_flags = SA_RESTART};
    sigaction(SIGALRM, &action, NULL);
    action.sa_flags |= SA_ONSTACK;
    sigaction(SIGUSR2, &action, NULL);
    setvbuf(stdin, NULL, _IONBF, 0);
    target_count_from(1000);
    use_library(); // binds the imports
    // Signals are for the threads that ask for them.
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, NULL);
    int hasVectors = __builtin_cpu_supports("avx");
    if (!hasVectors) kept = 1;
    if (!is_single) {
        start(hot, 1000);
        start(hot, 2000);
        start(stormed, SIGALRM);
        start(stormed, SIGUSR2);
        start(keep, 0);
        if (hasVectors) start(keep, 1);
        for (int i = 0; i < kinds; i++) start(wait_always, i);
        for (int i = 0; i < kinds; i++)
            if (i != READ && i != PAUSE) start(wait_always, kinds + i);
        start(fork_always, 0);
        start(come_and_go, 0);
        start(cancel_always, 0);
        while (ready < awaited) usleep(1000);
        puts("ready");
        fflush(stdout);
        for (;;) answer();
    }
    have_alternate_stack();
    start_storm(SIGALRM, 700);
    start_storm(SIGUSR2, 1100);
    puts("ready");
    fflush(stdout);
    struct pollfd input = {0, POLLIN, 0};
    for (unsigned round = 0;; round++) {
        if (poll(&input, 1, 0) > 0) answer();
        descend(round % 40, round);
        if (hasVectors) keep_vectors((unsigned char)round);
        bad += keep_registers();
        kept++;
        if (round % 16 == 0) fork_once();
        if (round % 4 == 0) usleep(300);
    }
}
