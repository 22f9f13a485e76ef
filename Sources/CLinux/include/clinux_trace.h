// ptrace(2) and what a tracer thread needs around it. Everything here belongs to the thread that seized.
#ifndef FOTHER_CLINUX_TRACE_H
#define FOTHER_CLINUX_TRACE_H
#include <stddef.h>
#include <stdint.h>
#include <sys/user.h>

/// Bits for `options`; they take effect with the seizure.
#define FOTHER_SUSPEND_SECCOMP 1
/// PTRACE_SEIZE: attaches without stopping. SUSPEND_SECCOMP needs kernel 4.3 and CONFIG_CHECKPOINT_RESTORE
/// (-EINVAL without), CAP_SYS_ADMIN and a tracer without a seccomp filter of its own (-EPERM).
int fother_seize(int tid, int options);
/// Waits for `tid`, seized by the calling thread, to stop. `*event` is 0 for a signal or a system call, 128 for an
/// interrupt or a group stop. -ECHILD when it has ended; its exit status is left for its parent. -EINTR by alarm.
int fother_wait_stop(int tid, int *signal, int *event);
int fother_interrupt(int tid);
int fother_detach(int tid, int signal);
/// PTRACE_CONT.
int fother_continue(int tid, int signal);
/// PTRACE_SYSCALL: runs to the next entry into or exit from a system call.
int fother_continue_to_syscall(int tid, int signal);
int fother_get_registers(int tid, struct user_regs_struct *registers);
int fother_set_registers(int tid, const struct user_regs_struct *registers);
/// The XSAVE area: x87, vector and further registers. Returns its size.
int64_t fother_get_vector_state(int tid, void *buffer, size_t size);
/// kcmp(2): 1 when two processes share their memory, 0 when not. -ENOSYS without CONFIG_KCMP.
int fother_share_memory(int pid, int other);
/// get_robust_list(2): where the head of a thread's list is; 0 when it has none.
int64_t fother_robust_list(int tid);
int fother_tgkill(int tgid, int tid, int signal);
int fother_gettid(void);
/// setpriority(2) of the calling thread, and of those that it starts.
int fother_set_nice(int nice);

/// Runs `body` on a new thread that blocks every signal but the alarm's, and waits for its end. The kernel releases
/// whatever the thread has seized, running or stopped, when it ends.
int fother_on_own_thread(void (*body)(void *), void *context);
/// Starts a thread that blocks every signal; 0 when it cannot be started. It must be joined.
uint64_t fother_start_thread(void (*body)(void *), void *context);
void fother_join_thread(uint64_t thread);
/// kcmp(2) of two processes' memory: 0 the same, 1 and 2 an order of all others, or -errno.
int fother_order_memory(int pid, int other);
/// From `nanoseconds` on, and until disarmed, system calls of the calling thread return -EINTR. 0 disarms.
int fother_alarm(int64_t nanoseconds);
/// SCHED_FIFO at the lowest priority, reset on fork, or back to SCHED_OTHER. Needs CAP_SYS_NICE.
int fother_set_realtime(int on);
#endif
