// ptrace and the thread that uses it: see clinux_trace.h.
#define _GNU_SOURCE 1
#include "clinux.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>
#include <pthread.h>
#include <sched.h>
#include <elf.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/uio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>

#ifndef PTRACE_O_SUSPEND_SECCOMP
#define PTRACE_O_SUSPEND_SECCOMP (1 << 21)
#endif
#ifndef sigev_notify_thread_id
#define sigev_notify_thread_id _sigev_un._tid
#endif

static int result(long n) { return n < 0 ? -errno : 0; }

int fother_seize(int tid, int options) {
    // Without TRACESYSGOOD a stop at a system call looks like a SIGTRAP of the program's own.
    unsigned long data = PTRACE_O_TRACESYSGOOD | (options & FOTHER_SUSPEND_SECCOMP ? PTRACE_O_SUSPEND_SECCOMP : 0);
    return result(ptrace(PTRACE_SEIZE, tid, NULL, data));
}
// A thread that stops on another processor does so within microseconds, and waking a sleeper up costs more than that.
#define WATCH_NANOSECONDS 25000
static int watches;
static pthread_once_t watches_once = PTHREAD_ONCE_INIT;
static void decide_watching(void) { watches = sysconf(_SC_NPROCESSORS_ONLN) > 1; }

int fother_wait_stop(int tid, int *signal, int *event) {
    siginfo_t info;
    // Not WEXITED: a dead thread then gives ECHILD at once, and a dead group leader with living threads, which
    // never stops and cannot be reaped, does not block.
    // WNOWAIT: the stop is not taken from the thread. Taking it takes the signal that is about to be delivered as well, and it
    // would be lost if this process were killed before it releases the thread. What resumes a thread ends its stop.
    const int options = WSTOPPED | WNOWAIT | __WALL | __WNOTHREAD;
    pthread_once(&watches_once, decide_watching);
    int64_t until = 0;
    for (;;) {
        info.si_pid = 0;
        if (waitid(P_PID, (id_t)tid, &info, watches ? options | WNOHANG : options) < 0) return -errno;
        if (info.si_pid) break;
        int64_t now = fother_now();
        if (!until) until = now + WATCH_NANOSECONDS;
        if (now < until) continue;
        if (waitid(P_PID, (id_t)tid, &info, options) < 0) return -errno;
        break;
    }
    *signal = info.si_status & 0xff;
    *event = info.si_status >> 8;
    return 0;
}
int fother_interrupt(int tid) { return result(ptrace(PTRACE_INTERRUPT, tid, NULL, NULL)); }
int fother_detach(int tid, int signal) { return result(ptrace(PTRACE_DETACH, tid, NULL, (long)signal)); }
int fother_continue(int tid, int signal) { return result(ptrace(PTRACE_CONT, tid, NULL, (long)signal)); }
int fother_continue_to_syscall(int tid, int signal) {
    return result(ptrace(PTRACE_SYSCALL, tid, NULL, (long)signal));
}
int fother_get_registers(int tid, struct user_regs_struct *registers) {
    return result(ptrace(PTRACE_GETREGS, tid, NULL, registers));
}
int fother_set_registers(int tid, const struct user_regs_struct *registers) {
    return result(ptrace(PTRACE_SETREGS, tid, NULL, registers));
}
int64_t fother_get_vector_state(int tid, void *buffer, size_t size) {
    struct iovec area = {buffer, size};
    if (ptrace(PTRACE_GETREGSET, tid, NT_X86_XSTATE, &area) < 0) return -errno;
    return (int64_t)area.iov_len;
}
int fother_share_memory(int pid, int other) {
    long n = syscall(SYS_kcmp, pid, other, 1 /* KCMP_VM */, 0, 0);
    return n < 0 ? -errno : n == 0;
}
int64_t fother_robust_list(int tid) {
    void *head = NULL;
    size_t size;
    long n = syscall(SYS_get_robust_list, tid, &head, &size);
    return n < 0 ? -errno : (int64_t)(uintptr_t)head;
}
int fother_tgkill(int tgid, int tid, int signal) { return result(syscall(SYS_tgkill, tgid, tid, signal)); }
int fother_set_nice(int nice) { return result(setpriority(PRIO_PROCESS, 0, nice)); }
int fother_gettid(void) { return (int)syscall(SYS_gettid); }

static int alarm_signal(void) { return SIGRTMAX - 3; }
static void alarm_handler(int signal) { (void)signal; }
static pthread_once_t alarm_once = PTHREAD_ONCE_INIT;
static void alarm_install(void) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = alarm_handler; // no SA_RESTART: interrupting is its purpose
    sigaction(alarm_signal(), &action, NULL);
}
static __thread timer_t alarm_timer;
static __thread int alarm_made;

struct job {
    void (*body)(void *);
    void *context;
    int is_moved;
    /// Where it may run again once it has begun.
    cpu_set_t processors;
};
static void *run(void *argument) {
    struct job *job = argument;
    sigset_t mask;
    sigfillset(&mask);
    sigdelset(&mask, alarm_signal());
    pthread_sigmask(SIG_SETMASK, &mask, NULL);
    if (job->is_moved) pthread_setaffinity_np(pthread_self(), sizeof job->processors, &job->processors);
    job->body(job->context);
    fother_alarm(0);
    return NULL;
}

int fother_on_own_thread(void (*body)(void *), void *context) {
    pthread_once(&alarm_once, alarm_install);
    struct job job = {body, context, .is_moved = 0};
    // It begins where the caller is, who only waits for it: anywhere else it would push somebody aside.
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    int here = sched_getcpu();
    if (here >= 0 && here < CPU_SETSIZE && pthread_getaffinity_np(pthread_self(), sizeof job.processors, &job.processors) == 0) {
        cpu_set_t one;
        CPU_ZERO(&one);
        CPU_SET((size_t)here, &one);
        job.is_moved = pthread_attr_setaffinity_np(&attributes, sizeof one, &one) == 0;
    }
    pthread_t thread;
    int error = pthread_create(&thread, &attributes, run, &job);
    if (error && job.is_moved) {
        job.is_moved = 0;
        error = pthread_create(&thread, NULL, run, &job);
    }
    pthread_attr_destroy(&attributes);
    return error ? -error : -pthread_join(thread, NULL);
}

static void *run_beside(void *argument) {
    struct job job = *(struct job *)argument;
    free(argument);
    job.body(job.context);
    return NULL;
}

uint64_t fother_start_thread(void (*body)(void *), void *context) {
    struct job *job = malloc(sizeof *job);
    if (!job) return 0;
    *job = (struct job){body, context, .is_moved = 0};
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_t thread;
    int error = pthread_create(&thread, NULL, run_beside, job);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error) free(job);
    return error ? 0 : (uint64_t)thread;
}
void fother_join_thread(uint64_t thread) { pthread_join((pthread_t)thread, NULL); }

int fother_order_memory(int pid, int other) {
    long n = syscall(SYS_kcmp, pid, other, 1 /* KCMP_VM */, 0, 0);
    return n < 0 ? -errno : (int)n;
}

int fother_alarm(int64_t nanoseconds) {
    if (nanoseconds <= 0) {
        if (!alarm_made) return 0;
        alarm_made = 0;
        return result(timer_delete(alarm_timer));
    }
    if (!alarm_made) {
        struct sigevent event;
        memset(&event, 0, sizeof event);
        event.sigev_notify = SIGEV_THREAD_ID;
        event.sigev_signo = alarm_signal();
        event.sigev_notify_thread_id = fother_gettid();
        if (timer_create(CLOCK_MONOTONIC, &event, &alarm_timer) < 0) return -errno;
        alarm_made = 1;
    }
    // It repeats: one that fires just before a blocking call would otherwise be lost.
    struct itimerspec when = {{0, 2000000}, {nanoseconds / 1000000000, nanoseconds % 1000000000}};
    return result(timer_settime(alarm_timer, 0, &when, NULL));
}

int fother_set_realtime(int on) {
    struct sched_param parameter = {on ? sched_get_priority_min(SCHED_FIFO) : 0};
    return result(sched_setscheduler(0, on ? SCHED_FIFO | SCHED_RESET_ON_FORK : SCHED_OTHER, &parameter));
}
