// Control flow that leaves the library by other ways than a return, and threads and processes that come and go meanwhile.
// Arguments, each a load that goes on until the end:
//   longjmp     a thread jumps out of target_hold, over its frame
//   recursion   a thread runs down target_hold, fifty deep, and up again
//   cancel      threads are cancelled inside target_hold, one after the other
//   handler     a signal handler on an alternate stack calls the library, a thousand times a second
//   fork        children are forked that ask the library and say by their exit whether it is one version
//   spawn       children are made by posix_spawn
//   sleepers N  N threads wait, thirty frames deep
//   clone       a task outside the process runs in the same memory, for ever
// Lines: load ("DONE WRONG"), enter deferred|async (a thread enters target_hold and stays), cancel (it is cancelled: "INNER OUTER CANCELLED"
//        cleanup handlers), leave (the task of `clone` ends), and those of questions.h.
#define _GNU_SOURCE
#include "questions.h"
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static atomic_long done, wrong;
static void check(int good) {
    if (good) done++;
    else wrong++;
}
static int one_version(void) {
    int verdict = target_verdict(200), small = target_verdict(5);
    const char *greeting = target_greeting();
    if (small != 16) return 0;
    // Between the questions the version may change once.
    return (verdict == 601 || verdict == -1) && !strncmp(greeting, "greetings from the ", 19);
}

static int jump_out(void *buffer) { _longjmp(buffer, 1); }
static void *jumper(void *unused) {
    (void)unused;
    for (volatile unsigned i = 0;; i++) {
        jmp_buf buffer;
        volatile unsigned before = i;
        if (!_setjmp(buffer)) wrong += target_hold(jump_out, buffer) != 12345;
        check(before == i);
        if (i % 50 == 0) usleep(300);
    }
    return NULL;
}

static int down(void *depth) {
    long n = (long)depth;
    return n == 0 ? 0 : target_hold(down, (void *)(n - 1));
}
static void *diver(void *unused) {
    (void)unused;
    for (unsigned i = 0;; i++) {
        check(target_hold(down, (void *)50) == 51);
        if (i % 50 == 0) usleep(300);
    }
    return NULL;
}

static atomic_int inner, outer, inside;
static void count(void *counter) { (*(atomic_int *)counter)++; }
static int wait_for_cancel(void *is_async) {
    int previous;
    pthread_cleanup_push(count, &inner);
    if (is_async) pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, &previous);
    inside = 1;
    if (is_async) for (volatile unsigned long i = 0;; i++) {}
    for (;;) pause();
    pthread_cleanup_pop(0);
    return 0;
}
static void *cancelled_thread(void *is_async) {
    pthread_cleanup_push(count, &outer);
    target_hold(wait_for_cancel, is_async);
    pthread_cleanup_pop(0);
    return NULL;
}
static pthread_t victim;
static void enter(int is_async) {
    inside = 0;
    if (pthread_create(&victim, NULL, cancelled_thread, is_async ? &inside : NULL)) exit(3);
    while (!inside) usleep(100);
}
static int cancel(void) {
    void *result = NULL;
    pthread_cancel(victim);
    pthread_join(victim, &result);
    return result == PTHREAD_CANCELED;
}
static void *canceller(void *unused) {
    (void)unused;
    for (int i = 0;; i++) {
        int before = inner + outer;
        enter(i & 1);
        check(cancel() && inner + outer == before + 2);
    }
    return NULL;
}

static void on_timer(int number) {
    int saved = errno;
    (void)number;
    check(one_version() && target_hold(down, (void *)3) == 4);
    errno = saved;
}
static void *ticker(void *unused) {
    static char stack[64 << 10];
    stack_t s = {.ss_sp = stack, .ss_size = sizeof stack};
    struct sigaction action = {.sa_handler = on_timer, .sa_flags = SA_ONSTACK | SA_RESTART};
    struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGUSR2};
    struct itimerspec often = {{0, 1000000}, {0, 1000000}};
    timer_t timer;
    (void)unused;
    sigaltstack(&s, NULL);
    sigaction(SIGUSR2, &action, NULL);
    event._sigev_un._tid = (int)syscall(SYS_gettid);
    if (timer_create(CLOCK_MONOTONIC, &event, &timer) || timer_settime(timer, 0, &often, NULL)) exit(4);
    for (;;) check(one_version());
    return NULL;
}

static void *forker(void *unused) {
    (void)unused;
    for (;;) {
        pid_t child = fork();
        if (child == 0) {
            int verdict = target_verdict(200), is_new = !strcmp(target_greeting(), "greetings from the fixed build");
            _exit((verdict == -1) == is_new ? 0 : 1);
        }
        int status;
        while (waitpid(child, &status, 0) < 0 && errno == EINTR) {}
        check(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    return NULL;
}
static void *spawner(void *unused) {
    (void)unused;
    for (;;) {
        char *arguments[] = {"true", NULL}, *none[] = {NULL};
        pid_t child;
        int status;
        if (posix_spawnp(&child, "true", NULL, NULL, arguments, none)) exit(5);
        while (waitpid(child, &status, 0) < 0 && errno == EINTR) {}
        check(status == 0);
    }
    return NULL;
}

static int sleep_deep(long n, int depth) {
    volatile char pad[512];
    pad[0] = (char)depth;
    if (depth) return sleep_deep(n, depth - 1) + pad[0] - (char)depth;
    struct timespec long_time = {600, 0};
    struct pollfd nothing = {.fd = -1};
    static unsigned word;
    long r;
    done++;
    if (n % 3 == 0) r = syscall(SYS_futex, &word, 0, 0, NULL);
    else if (n % 3 == 1) r = nanosleep(&long_time, NULL);
    else r = poll(&nothing, 1, 600000);
    wrong++;
    return (int)r;
}
static void *sleeper(void *n) {
    sleep_deep((long)n, 30);
    return NULL;
}

static atomic_int leaving;
static int shared_task(void *unused) {
    struct timespec moment = {0, 1000000};
    (void)unused;
    while (!leaving) syscall(SYS_nanosleep, &moment, NULL);
    syscall(SYS_exit, 0);
    return 0;
}

static void other(const char *line) {
    if (!strcmp(line, "load\n")) printf("%ld %ld\n", done, wrong);
    else if (!strncmp(line, "enter ", 6)) { enter(line[6] == 'a'); puts("inside"); }
    else if (!strcmp(line, "cancel\n")) { int c = cancel(); printf("%d %d %d\n", inner, outer, c); }
    else if (!strcmp(line, "leave\n")) { leaving = 1; waitpid(-1, NULL, __WALL); puts("left"); }
    else puts("?");
    fflush(stdout);
}
static void start(void *(*work)(void *), void *argument) {
    pthread_attr_t attributes;
    pthread_t thread;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 128 << 10);
    if (pthread_create(&thread, &attributes, work, argument)) exit(6);
}
int main(int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "longjmp")) start(jumper, NULL);
        else if (!strcmp(argv[i], "recursion")) start(diver, NULL);
        else if (!strcmp(argv[i], "cancel")) start(canceller, NULL);
        else if (!strcmp(argv[i], "handler")) start(ticker, NULL);
        else if (!strcmp(argv[i], "fork")) start(forker, NULL);
        else if (!strcmp(argv[i], "spawn")) start(spawner, NULL);
        else if (!strcmp(argv[i], "sleepers")) {
            long n = atol(argv[++i]);
            for (long k = 0; k < n; k++) start(sleeper, (void *)k);
            while (done < n) usleep(1000);
        } else if (!strcmp(argv[i], "clone")) {
            static char stack[64 << 10];
            if (clone(shared_task, stack + sizeof stack, CLONE_VM, NULL) < 0) return 7;
        } else return 2;
    }
    serve(other);
    return 0;
}
