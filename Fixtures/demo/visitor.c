// The guests of the demonstration.
//
//   visitor PORT guest NAME NOTE   signs in, leaves a note and keeps the session open, asking COUNT every millisecond
//                                  and checking every answer. For each line on standard input it prints
//                                  "REQUESTS ERRORS LONGEST-WAIT-NS"; it ends when that closes.
//   visitor PORT ask LINE          sends one request on a connection of its own and prints the answer, with bytes
//                                  that are not printable as dots.
#include <arpa/inet.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static int fd;
static char answer[4096];

static long now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000L + t.tv_nsec;
}

// Sends a line, reads until the newline that ends the answer. Returns the answer's length, 0 when it did not come.
static size_t ask(const char *line) {
    size_t have = 0;
    if (dprintf(fd, "%s\n", line) < 0) return 0;
    while (have < sizeof answer - 1) {
        ssize_t got = recv(fd, answer + have, sizeof answer - 1 - have, 0);
        if (got <= 0) return 0;
        have += (size_t)got;
        if (answer[have - 1] == '\n') break;
    }
    answer[have] = 0;
    return have;
}

static int guest(const char *name, const char *text) {
    char line[128], expected[128];
    unsigned long requests = 2, errors = 0;
    long longest = 0;
    snprintf(line, sizeof line, "HELLO %s", name);
    if (!ask(line) || strncmp(answer, "OK ", 3)) return 1;
    snprintf(line, sizeof line, "NOTE %s", text);
    if (!ask(line) || strncmp(answer, "OK ", 3)) return 1;
    printf("signed in\n");
    fflush(stdout);
    for (;;) {
        struct pollfd input = {.fd = 0, .events = POLLIN};
        if (poll(&input, 1, 1) > 0) {
            char question[16];
            if (read(0, question, sizeof question) <= 0) return 0;
            printf("%lu %lu %ld\n", requests, errors, longest);
            fflush(stdout);
        }
        long before = now();
        requests++;
        snprintf(expected, sizeof expected, "OK %lu\n", requests);
        // The session counts its own requests: a lost session, or a lost request, would show here.
        if (!ask("COUNT") || strcmp(answer, expected)) errors++;
        long took = now() - before;
        if (took > longest) longest = took;
    }
}

int main(int argc, char **argv) {
    struct sockaddr_in there = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    struct timeval patience = {.tv_sec = 5};
    if (argc < 4) return 64;
    there.sin_port = htons((unsigned short)atoi(argv[1]));
    fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) ||
        connect(fd, (struct sockaddr *)&there, sizeof there)) {
        perror("visitor");
        return 1;
    }
    if (!strcmp(argv[2], "guest") && argc == 5) return guest(argv[3], argv[4]);
    if (strcmp(argv[2], "ask")) return 64;
    size_t n = ask(argv[3]);
    if (!n) return 1;
    for (size_t i = 0; i + 1 < n; i++) putchar(answer[i] >= ' ' && answer[i] <= '~' ? answer[i] : '.');
    putchar('\n');
    return 0;
}
