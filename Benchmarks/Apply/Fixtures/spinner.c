// A process that measures its own pauses: spinner THREADS
// The main thread spins when told to, calling the library and reading the clock, and keeps the longest time between two
// readings. Of the other threads every second one waits in a system call (futex, read, epoll_wait, nanosleep, poll, in turn);
// the rest call the library 50 times and sleep for THREADS * 100 us, so that together they use about a twentieth of one
// processor however many they are. Every thread does this 32 frames of a kibibyte below its start.
// It is told what to do through its input, and asked for the results through `control`, whose address it prints.
#define _GNU_SOURCE
#include <errno.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

unsigned work_one(unsigned), work_two(unsigned), work_three(unsigned);

enum command { IDLE, SPIN, SPIN_REALTIME, COST, MAP_ANONYMOUS_CODE, MAP_MEMFD_CODE };

static struct {
    _Atomic uint32_t command; // under way; IDLE is written from outside
    _Atomic uint32_t done;    // commands so far whose results stand below
    uint64_t longest;         // ns
    uint64_t result;          // COST: ps for one call; SPIN: calls
    _Atomic uint64_t wrong;   // answers that neither build gives
    _Atomic uint64_t returns; // of calls that should never return
    uint64_t size;            // MAP_...: bytes
} control;

static _Atomic int ready;
static int others;

static uint64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void call(unsigned x) {
    unsigned a = work_one(x), b = work_two(x), c = work_three(x);
    if ((a != x + 0x10000 && a != 2 * x) || (b != x + 0x20000 && b != 3 * x) || (c != x + 0x30000 && c != 5 * x)) control.wrong++;
}

static void spin(void) {
    uint64_t calls = 0, longest = 0, last = now();
    while (control.command != IDLE) {
        call((unsigned)calls++);
        uint64_t t = now();
        if (t - last > longest) longest = t - last;
        last = t;
    }
    control.longest = longest;
    control.result = calls;
}

static void cost(void) {
    enum { calls = 3000000 };
    uint64_t best = UINT64_MAX;
    for (int batch = 0; batch < 3; batch++) {
        unsigned sum = 0;
        uint64_t start = now();
        for (int i = 0; i < calls; i++) sum = work_one(sum);
        uint64_t took = now() - start;
        if (took < best) best = took;
    }
    control.result = best * 1000 / calls;
}

// Memory as code that nobody shares has it: filled, readable and executable.
static void map_code(int is_memfd) {
    size_t size = control.size;
    char *code;
    if (is_memfd) {
        int fd = memfd_create("code", MFD_CLOEXEC);
        for (size_t at = 0; at < size; at += 4096) if (pwrite(fd, "x", 1, (off_t)(at + 4095)) != 1) exit(4);
        code = mmap(NULL, size, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0);
        close(fd);
    } else {
        code = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (code != MAP_FAILED) for (size_t at = 0; at < size; at += 4096) code[at] = 1;
        mprotect(code, size, PROT_READ | PROT_EXEC);
    }
    if (code == MAP_FAILED) exit(5);
    for (size_t at = 0; at < size; at += 4096) (void)*(volatile char *)(code + at);
}

// One byte of the input is one command. Spinning ends when the command is taken back in memory.
static void *obey(void *unused) {
    (void)unused;
    unsigned char command;
    while (read(0, &command, 1) == 1) {
        struct sched_param first = {.sched_priority = 1}, none = {0};
        if (command == SPIN_REALTIME) sched_setscheduler(0, SCHED_FIFO, &first);
        control.command = command;
        if (command == COST) cost();
        else if (command >= MAP_ANONYMOUS_CODE) map_code(command == MAP_MEMFD_CODE);
        else spin();
        if (command == SPIN_REALTIME) sched_setscheduler(0, SCHED_OTHER, &none);
        control.command = IDLE;
        control.done++;
    }
    exit(0);
}

static void *block(void *argument) {
    int kind = (int)(intptr_t)argument, pipes[2], epoll = epoll_create1(0);
    uint32_t word = 0;
    if (pipe(pipes)) exit(3);
    struct epoll_event event = {.events = EPOLLIN};
    epoll_ctl(epoll, EPOLL_CTL_ADD, pipes[0], &event);
    struct pollfd fd = {pipes[0], POLLIN, 0};
    struct timespec long_time = {6000, 0};
    char byte;
    ready++;
    for (;;) {
        switch (kind) {
        case 0: syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 0, NULL); break;
        case 1: if (read(pipes[0], &byte, 1)) break; break;
        case 2: epoll_wait(epoll, &event, 1, -1); break;
        case 3: nanosleep(&long_time, NULL); break;
        default: poll(&fd, 1, 6000000);
        }
        control.returns++;
    }
    return NULL;
}

static void *stroll(void *unused) {
    (void)unused;
    prctl(PR_SET_TIMERSLACK, 1);
    ready++;
    for (;;) {
        for (int i = 0; i < 50; i++) call((unsigned)i);
        usleep((useconds_t)(others + 1) * 100);
    }
    return NULL;
}

// Runs `role` below 32 frames of a kibibyte each.
struct task { void *(*role)(void *); void *argument; };
static int __attribute__((noipa)) descend(int depth, struct task *task) {
    volatile unsigned char frame[1024];
    for (unsigned i = 0; i < sizeof frame; i++) frame[i] = (unsigned char)(i + (unsigned)depth);
    if (depth == 0) task->role(task->argument);
    else descend(depth - 1, task);
    return frame[depth];
}
static void *start(void *argument) {
    descend(32, argument);
    return NULL;
}

int main(int argc, char **argv) {
    others = (argc > 1 ? atoi(argv[1]) : 1) - 1;
    prctl(PR_SET_PDEATHSIG, 9);
    pthread_attr_t small;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 128 << 10);
    for (int i = 0; i < others; i++) {
        struct task *task = malloc(sizeof *task);
        *task = i % 2 ? (struct task){stroll, NULL} : (struct task){block, (void *)(intptr_t)(i / 2 % 5)};
        pthread_t thread;
        if (pthread_create(&thread, &small, start, task)) return 2;
    }
    call(0); // binds the imports
    while (ready < others) usleep(1000);
    usleep(20000); // for the last to be in its call
    printf("%lu\n", (unsigned long)&control);
    fflush(stdout);
    struct task mine = {obey, NULL};
    start(&mine);
    return 0;
}
