// The guestbook service: a thread for each guest on a loopback port of the kernel's choice, and one thread that does
// nothing but watch the clock, so that the service itself can say how long it was ever held up.
//
// Prints "listening PORT", then answers line by line on standard input, and ends when that closes, so that it never
// outlives whoever started it:
//   pause       longest gap between two looks at the clock since the last time this was asked, in nanoseconds
//   interrupts  how many waits ended early with EINTR: none should, whatever is done to this process
#include "guestbook.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static _Atomic long longest_gap;
static _Atomic unsigned interrupts;

static long now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000L + t.tv_nsec;
}

static void *watch_the_clock(void *unused) {
    (void)unused;
    for (long before = now();;) {
        long after = now();
        long gap = after - before;
        long longest = longest_gap;
        while (gap > longest && !atomic_compare_exchange_weak(&longest_gap, &longest, gap)) {}
        before = after;
    }
    return NULL;
}

static void *serve(void *argument) {
    int fd = (int)(long)argument;
    struct gb_session session;
    char line[GB_LINE_MAX], reply[2048];
    size_t have = 0;
    gb_open(&session);
    for (;;) {
        // A wait with a timeout is what a stop by a tracer shows up in, if it is done carelessly.
        struct pollfd wait = {.fd = fd, .events = POLLIN};
        int ready = poll(&wait, 1, 60000);
        if (ready < 0 && errno == EINTR) interrupts++;
        if (ready <= 0) break;
        ssize_t got = recv(fd, line + have, sizeof line - have, 0);
        if (got < 0 && errno == EINTR) interrupts++;
        if (got <= 0) break;
        have += (size_t)got;
        char *end;
        while ((end = memchr(line, '\n', have))) {
            size_t length = (size_t)(end - line);
            size_t n = gb_answer(&session, line, length, reply, sizeof reply);
            if (send(fd, reply, n, MSG_NOSIGNAL) < 0) goto gone;
            memmove(line, end + 1, have - length - 1);
            have -= length + 1;
        }
        if (have == sizeof line) break;
    }
gone:
    gb_close(&session);
    close(fd);
    return NULL;
}

static void *welcome(void *argument) {
    int listener = (int)(long)argument;
    for (;;) {
        int fd = accept(listener, NULL, NULL);
        pthread_t guest;
        if (fd < 0 && errno == EINTR) interrupts++;
        if (fd < 0) continue;
        if (pthread_create(&guest, NULL, serve, (void *)(long)fd)) close(fd);
        else pthread_detach(guest);
    }
    return NULL;
}

int main(void) {
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t size = sizeof here;
    pthread_t thread;
    char question[32];
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (listener < 0 || bind(listener, (struct sockaddr *)&here, size) || listen(listener, 16) ||
        getsockname(listener, (struct sockaddr *)&here, &size)) {
        perror("guestbook");
        return 1;
    }
    if (pthread_create(&thread, NULL, watch_the_clock, NULL) ||
        pthread_create(&thread, NULL, welcome, (void *)(long)listener))
        return 1;
    printf("listening %d\n", ntohs(here.sin_port));
    fflush(stdout);
    while (fgets(question, sizeof question, stdin)) {
        if (!strcmp(question, "pause\n")) printf("%ld\n", atomic_exchange(&longest_gap, 0));
        else if (!strcmp(question, "interrupts\n")) printf("%u\n", interrupts);
        else printf("what?\n");
        fflush(stdout);
    }
    return 0;
}
