// A TCP server on 127.0.0.1 with clients of its own that ask and check: "N\n" is answered by the library's verdict of N.
// Argument: io_uring | epoll. Under io_uring a read on a pipe keeps a worker thread of the kernel busy all the time.
// Lines: load ("ASKED WRONG INTERRUPTED"), and those of questions.h.
#include "questions.h"
#include <arpa/inet.h>
#include <errno.h>
#include <linux/io_uring.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { connections_max = 64, entries = 128 };
static atomic_long served, interrupted;
static int listener;
struct connection { int fd, used; char line[64]; };
static struct connection connections[1024];

static int answer(struct connection *c, int got, char *out) {
    int n = 0;
    for (int i = 0; i < got; i++) {
        char byte = c->line[c->used];
        if (byte != '\n') {
            if (c->used < 60) c->used++;
            continue;
        }
        c->line[c->used] = 0;
        c->used = 0;
        n += sprintf(out + n, "%d\n", target_verdict(atoi(c->line)));
        served++;
    }
    return n;
}

static void *by_epoll(void *unused) {
    int e = epoll_create1(0);
    struct epoll_event events[16], add = {.events = EPOLLIN, .data.fd = listener};
    (void)unused;
    epoll_ctl(e, EPOLL_CTL_ADD, listener, &add);
    for (;;) {
        int n = epoll_wait(e, events, 16, -1);
        if (n < 0) { interrupted++; continue; }
        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd;
            if (fd == listener) {
                struct epoll_event client = {.events = EPOLLIN, .data.fd = accept(listener, NULL, NULL)};
                if (client.data.fd < 0) { interrupted++; continue; }
                if (client.data.fd >= 1024) exit(3);
                connections[client.data.fd] = (struct connection){.fd = client.data.fd};
                epoll_ctl(e, EPOLL_CTL_ADD, client.data.fd, &client);
                continue;
            }
            char byte, out[64];
            ssize_t got = read(fd, &byte, 1);
            if (got < 0) { interrupted++; continue; }
            if (got == 0) { close(fd); continue; }
            connections[fd].line[connections[fd].used] = byte;
            int length = answer(&connections[fd], 1, out);
            if (length && write(fd, out, (size_t)length) != length) interrupted++;
        }
    }
    return NULL;
}

static struct io_uring_params ring;
static int ring_fd;
static char *queues;
static struct io_uring_sqe *requests;
static struct io_uring_cqe *completions;
static unsigned *at(unsigned offset) { return (unsigned *)(queues + offset); }
static unsigned waiting;
static void submit(int opcode, int fd, const void *address, unsigned length, unsigned long tag, int flags) {
    unsigned tail = *at(ring.sq_off.tail), i = tail & *at(ring.sq_off.ring_mask);
    requests[i] = (struct io_uring_sqe){.opcode = (unsigned char)opcode, .fd = fd, .addr = (unsigned long)address, .len = length,
                                        .user_data = tag, .flags = (unsigned char)flags};
    if (opcode == IORING_OP_READ || opcode == IORING_OP_WRITE) requests[i].off = (unsigned long)-1;
    at(ring.sq_off.array)[i] = i;
    atomic_store_explicit((_Atomic unsigned *)at(ring.sq_off.tail), tail + 1, memory_order_release);
    waiting++;
}
static int start_ring(void) {
    ring_fd = (int)syscall(SYS_io_uring_setup, entries, &ring);
    if (ring_fd < 0) return 0;
    queues = mmap(NULL, ring.cq_off.cqes + ring.cq_entries * sizeof *completions, PROT_READ | PROT_WRITE, MAP_SHARED, ring_fd, IORING_OFF_SQ_RING);
    requests = mmap(NULL, ring.sq_entries * sizeof *requests, PROT_READ | PROT_WRITE, MAP_SHARED, ring_fd, IORING_OFF_SQES);
    if (queues == MAP_FAILED || (void *)requests == MAP_FAILED || !(ring.features & IORING_FEAT_SINGLE_MMAP)) return 0;
    completions = (struct io_uring_cqe *)(queues + ring.cq_off.cqes);
    return 1;
}
enum { accepted, received, sent, worked };
static void *by_ring(void *unused) {
    static char inbox[1024], outbox[1024][64], never;
    int pipes[2];
    (void)unused;
    if (pipe(pipes)) exit(4);
    submit(IORING_OP_READ, pipes[0], &never, 1, worked, IOSQE_ASYNC);
    submit(IORING_OP_ACCEPT, listener, NULL, 0, accepted, 0);
    for (;;) {
        long n = syscall(SYS_io_uring_enter, ring_fd, waiting, 1, IORING_ENTER_GETEVENTS, NULL, 0);
        if (n < 0) { interrupted++; continue; }
        waiting -= (unsigned)n;
        unsigned head = *at(ring.cq_off.head);
        while (head != atomic_load_explicit((_Atomic unsigned *)at(ring.cq_off.tail), memory_order_acquire)) {
            struct io_uring_cqe done = completions[head++ & *at(ring.cq_off.ring_mask)];
            unsigned long kind = done.user_data & 7, fd = done.user_data >> 3;
            if (done.res < 0) interrupted++;
            if (kind == accepted) {
                if (done.res >= 1024) exit(3);
                if (done.res >= 0) {
                    connections[done.res] = (struct connection){.fd = done.res};
                    submit(IORING_OP_READ, done.res, &inbox[done.res], 1, (unsigned long)done.res << 3 | received, 0);
                }
                submit(IORING_OP_ACCEPT, listener, NULL, 0, accepted, 0);
            } else if (kind == received) {
                if (done.res <= 0) { close((int)fd); continue; }
                struct connection *c = &connections[fd];
                c->line[c->used] = inbox[fd];
                int length = answer(c, 1, outbox[fd]);
                if (length) submit(IORING_OP_WRITE, (int)fd, outbox[fd], (unsigned)length, fd << 3 | sent, 0);
                submit(IORING_OP_READ, (int)fd, &inbox[fd], 1, fd << 3 | received, 0);
            }
        }
        atomic_store_explicit((_Atomic unsigned *)at(ring.cq_off.head), head, memory_order_release);
    }
    return NULL;
}

// Load from within: connections that ask, and check what they are told.
static atomic_long asked, wrong;
static void *client(void *argument) {
    struct sockaddr_in *address = argument;
    for (;;) {
        int fd = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(fd, (struct sockaddr *)address, sizeof *address)) exit(5);
        for (int i = 0; i < 200; i++) {
            char out[16], in[16] = {0};
            int small = i & 1, length = sprintf(out, "%d\n", small ? 5 : 200), got = 0;
            if (write(fd, out, (size_t)length) != length) wrong++;
            while (got < 15 && !memchr(in, '\n', sizeof in)) {
                ssize_t n = read(fd, in + got, sizeof in - 1 - (size_t)got);
                if (n <= 0) { wrong++; break; }
                got += (int)n;
            }
            int said = atoi(in);
            if (small ? said != 16 : said != 601 && said != -1) wrong++;
            asked++;
        }
        close(fd);
    }
    return NULL;
}
static void other(const char *line) {
    if (!strcmp(line, "load\n")) printf("%ld %ld %ld\n", asked, wrong, interrupted);
    else puts("?");
    fflush(stdout);
}
int main(int argc, char **argv) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t size = sizeof address;
    pthread_t thread;
    listener = socket(AF_INET, SOCK_STREAM, 0);
    if (argc < 2 || bind(listener, (struct sockaddr *)&address, size) || listen(listener, connections_max)) return 2;
    getsockname(listener, (struct sockaddr *)&address, &size);
    int is_ring = !strcmp(argv[1], "io_uring");
    if (is_ring && !start_ring()) { say("unsupported"); return 0; }
    pthread_create(&thread, NULL, is_ring ? by_ring : by_epoll, NULL);
    for (int i = 0; i < 4; i++) pthread_create(&thread, NULL, client, &address);
    while (asked < 100) usleep(1000);
    serve(other);
    return 0;
}
