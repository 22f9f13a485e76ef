/* A process to be patched: does what lines on its input say, answers each with one line, ends with its input.
     call N | say N | hold N | held | forge HEX | epoll MS | signalled | threads N | counts | seccomp | seal | inside
     fill N (leaves room for N more mappings) | drain */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>
int answer(int);
const char *say(int);
int wait_inside(int);
static volatile sig_atomic_t signalled;
static void on_term(int s) { (void)s; signalled++; }
static _Atomic long good, bad;
static int deep(int n, int x) {
    volatile char pad[256];
    pad[0] = (char)n;
    return n ? deep(n - 1, x) + pad[0] - (char)n : answer(x);
}
static void *hot(void *x) {
    for (long i = 0;; i++) {
        int n = (int)(i & 1023), a = deep(30, n) - n;
        if (a == 41 || a == 42) good++; else bad++;
        if (x && (i & 63) == 0) usleep(100);
    }
    return NULL;
}
static int doze(int n) {
    volatile char pad[256];
    pad[0] = (char)n;
    if (n) return doze(n - 1) + pad[0] - (char)n;
    struct pollfd none = {.fd = -1};
    int r = poll(&none, 1, 50);
    if (r < 0 && errno == EINTR) bad++;
    return r;
}
static void *sleepy(void *x) { (void)x; for (;;) doze(30); return NULL; }
static void filter(void) {
    struct sock_filter f[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mmap, 2, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mprotect, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
    };
    struct sock_fprog p = {sizeof f / sizeof *f, f};
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    printf("%d\n", prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &p));
}
/* Up to vm.max_map_count, but for n: neighbours of different protection do not merge. */
static char *block;
static size_t block_size;
static long room(void) {
    static char text[1 << 16];
    long left = 0, n;
    FILE *f = fopen("/proc/sys/vm/max_map_count", "r");
    if (!f || fscanf(f, "%ld", &left) != 1) exit(3);
    fclose(f);
    int fd = open("/proc/self/maps", O_RDONLY);
    while ((n = read(fd, text, sizeof text)) > 0)
        for (long i = 0; i < n; i++) left -= text[i] == '\n';
    close(fd);
    return left;
}
static void fill(long n) {
    if (!block) {
        block_size = (size_t)(room() + 64) << 12;
        block = mmap(NULL, block_size, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (block == MAP_FAILED) exit(4);
    }
    long wanted = room() - n;
    for (size_t at = 4096; wanted > 1; at += 8192, wanted -= 2) mprotect(block + at, 4096, PROT_NONE);
    if (wanted) mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    printf("%ld\n", room());
}
int main(void) {
    static char line[1 << 16];
    const char *held = "";
    struct sigaction act = {.sa_handler = on_term};
    sigaction(SIGTERM, &act, NULL);
    printf("ready\n");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        char *word = strtok(line, " \n"), *rest = strtok(NULL, "\n");
        int n = rest ? atoi(rest) : 0;
        if (!word) continue;
        if (!strcmp(word, "call")) printf("%d\n", answer(n));
        else if (!strcmp(word, "say")) printf("%s\n", say(n));
        else if (!strcmp(word, "hold")) { held = say(n); printf("held\n"); }
        else if (!strcmp(word, "held")) printf("%s\n", held);
        else if (!strcmp(word, "inside")) { printf("going in\n"); fflush(stdout); printf("%d\n", wait_inside(0)); }
        else if (!strcmp(word, "signalled")) printf("%d\n", (int)signalled);
        else if (!strcmp(word, "seccomp")) filter();
        else if (!strcmp(word, "seal")) /* mseal(2), kernel 6.10 */
            printf("%d\n", (int)syscall(462, (void *)((unsigned long)answer & ~4095ul), 4096ul, 0ul));
        else if (!strcmp(word, "counts")) printf("%ld %ld\n", good, bad);
        else if (!strcmp(word, "fill")) fill(n);
        else if (!strcmp(word, "drain")) printf("%d\n", munmap(block, block_size));
        else if (!strcmp(word, "threads")) {
            pthread_t t;
            for (int i = 0; i < n; i++) pthread_create(&t, NULL, i < 1 ? hot : i < 3 ? hot : sleepy, i < 1 ? NULL : (void *)1);
            printf("started\n");
        } else if (!strcmp(word, "epoll")) {
            int e = epoll_create1(0);
            struct epoll_event event;
            printf("waiting\n");
            fflush(stdout);
            int r = epoll_wait(e, &event, 1, n);
            printf("%d %s\n", r, r < 0 ? strerrorname_np(errno) : "-");
            close(e);
        } else if (!strcmp(word, "forge")) {
            unsigned char *page = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            for (size_t i = 0; rest && rest[2 * i] && rest[2 * i + 1] && i < 8192; i++) sscanf(rest + 2 * i, "%2hhx", page + i);
            mprotect(page, 8192, PROT_READ);
            printf("%lx\n", (unsigned long)page);
        } else printf("what?\n");
        fflush(stdout);
    }
    return 0;
}
