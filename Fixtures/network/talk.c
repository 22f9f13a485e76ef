// A client of the kernel's own TCP that does as it is told: talk ADDRESS PORT. Commands, a line each:
//   send HEX        one write          bytes HEX    the same, a byte a segment
//   fill N HEX      N bytes of a repeated pattern
//   half            no more to send    expect N     waits for N responses or the end
// Prints "connected PORT" or "refused", then after "expect" the bytes as "got HEX" (what came since the last "expect") and
// after it "open", "closed", "reset" or "silent" (nothing for 3 s). A failed write prints nothing: "expect" tells.
#define _GNU_SOURCE
#include <errno.h>
#include <linux/sockios.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static unsigned char data[8 << 20], got[4 << 20];
static char line[17 << 20];
static size_t filled;
static int reset;

static int value(char c) { return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1; }

static size_t hex(const char *s) {
    size_t n = 0;
    for (; value(s[2 * n]) >= 0 && value(s[2 * n + 1]) >= 0 && n < sizeof data; n++) data[n] = (unsigned char)(value(s[2 * n]) << 4 | value(s[2 * n + 1]));
    return n;
}

// 1 data, 0 end, -1 nothing
static int take(int s, int wait) {
    struct pollfd p = {.fd = s, .events = POLLIN};
    if (poll(&p, 1, wait) <= 0) return -1;
    ssize_t n = recv(s, got + filled, sizeof got - filled, MSG_DONTWAIT);
    if (n > 0) return filled += (size_t)n, 1;
    if (n < 0 && errno == EAGAIN) return -1;
    reset |= n < 0;
    return 0;
}

static int put(int s, const unsigned char *bytes, size_t count) {
    for (size_t done = 0; done < count;) {
        struct pollfd p = {.fd = s, .events = POLLOUT};
        if (poll(&p, 1, 10000) <= 0) return -1;
        ssize_t n = send(s, bytes + done, count - done, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EAGAIN) continue;
        if (n < 0) return reset |= errno == ECONNRESET, -1;
        done += (size_t)n;
    }
    return 0;
}

int main(int argc, char **argv) {
    if (argc < 3) return 64;
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST}, *to;
    if (getaddrinfo(argv[1], argv[2], &hints, &to)) return 1;
    int s = socket(to->ai_family, SOCK_STREAM, 0), yes = 1;
    setsockopt(s, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    if (connect(s, to->ai_addr, to->ai_addrlen)) { puts("refused"); return 0; }
    struct sockaddr_in6 mine;
    socklen_t size = sizeof mine;
    getsockname(s, (struct sockaddr *)&mine, &size);
    printf("connected %d\n", ntohs(mine.sin6_port));
    fflush(stdout);
    size_t pattern;
    while (fgets(line, sizeof line, stdin)) {
        if (!strncmp(line, "send ", 5)) put(s, data, hex(line + 5));
        else if (!strncmp(line, "bytes ", 6)) {
            size_t n = hex(line + 6);
            for (size_t i = 0; i < n && put(s, data + i, 1) == 0; i++) {
                // Nothing unsent before the next byte, so that each is a segment.
                for (int tries = 0; tries < 2000; tries++) {
                    int unsent = 0;
                    if (ioctl(s, SIOCOUTQNSD, &unsent) || unsent == 0) break;
                    usleep(100);
                }
            }
        } else if (!strncmp(line, "fill ", 5)) {
            char *rest;
            unsigned long long left = strtoull(line + 5, &rest, 10);
            pattern = hex(rest + 1);
            size_t all = pattern;
            while (all && all + pattern <= 1 << 18) memcpy(data + all, data, pattern), all += pattern;
            while (left && all) {
                size_t some = left < all ? (size_t)left : all;
                if (put(s, data, some)) break;
                left -= some;
            }
        } else if (!strncmp(line, "half", 4)) shutdown(s, SHUT_WR);
        else if (!strncmp(line, "expect ", 7)) {
            int wanted = atoi(line + 7), state = -1;
            for (;;) {
                int seen = 0;
                for (unsigned char *p = got; (p = memmem(p, filled - (size_t)(p - got), "HTTP/1.", 7)); p += 7) seen++;
                if (wanted > 0 && seen >= wanted) { while ((state = take(s, 30)) == 1) {} break; }
                state = take(s, 3000);
                if (state != 1) break;
            }
            fputs("got ", stdout);
            for (size_t i = 0; i < filled; i++) printf("%02x", got[i]);
            puts("");
            puts(state == 0 ? (reset ? "reset" : "closed") : wanted > 0 && filled ? "open" : "silent");
            fflush(stdout);
            filled = 0;
        }
    }
}
