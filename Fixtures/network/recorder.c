// An application that writes down exactly what it reads: recorder PORT FOLDER [--inline-urgent] [--small-window] [--quiet] [--discard]
// Each TCP connection's bytes go to FOLDER/N, its end to FOLDER/N.end ("closed" or "reset"), as they are read; datagrams to
// FOLDER/datagrams, a line of hex each. Every empty line (an HTTP head's end) is answered by 200, unless --quiet.
// --discard: nothing is written down, and eight processes hold a hundred thousand connections.
// Prints "ready" when it listens, on IPv4 and IPv6.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

static const char answer[] = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n";
struct connection { int socket, file, number, matched; };

static void end(const char *folder, struct connection *c, const char *how) {
    if (c->file >= 0) {
        char path[4096];
        snprintf(path, sizeof path, "%s/%d.end", folder, c->number);
        int f = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
        if (f >= 0 && write(f, how, strlen(how)) > 0) close(f);
        close(c->file);
    }
    close(c->socket);
    free(c);
}

int main(int argc, char **argv) {
    if (argc < 3) return 64;
    int urgent = 0, small = 0, quiet = 0, discard = 0, yes = 1, no = 0;
    for (int i = 3; i < argc; i++) {
        urgent |= !strcmp(argv[i], "--inline-urgent");
        small |= !strcmp(argv[i], "--small-window");
        discard |= !strcmp(argv[i], "--discard");
        quiet |= !strcmp(argv[i], "--quiet");
    }
    int listener = socket(AF_INET6, SOCK_STREAM | SOCK_NONBLOCK, 0), datagrams = socket(AF_INET6, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    struct sockaddr_in6 any = {.sin6_family = AF_INET6, .sin6_port = htons((unsigned short)atoi(argv[1]))};
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    setsockopt(listener, IPPROTO_IPV6, IPV6_V6ONLY, &no, sizeof no);
    setsockopt(datagrams, IPPROTO_IPV6, IPV6_V6ONLY, &no, sizeof no);
    int room = 4096;
    if (small) setsockopt(listener, SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
    if (bind(listener, (struct sockaddr *)&any, sizeof any) || bind(datagrams, (struct sockaddr *)&any, sizeof any) || listen(listener, 4096))
        return perror("recorder"), 1;
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    for (int i = 1; i < 8 && discard; i++) {
        if (fork()) continue;
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        break;
    }
    int poll = epoll_create1(0), count = 0;
    struct connection first = {.socket = listener}, second = {.socket = datagrams};
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = &first};
    epoll_ctl(poll, EPOLL_CTL_ADD, listener, &event);
    event.data.ptr = &second;
    epoll_ctl(poll, EPOLL_CTL_ADD, datagrams, &event);
    puts("ready");
    fflush(stdout);
    static unsigned char bytes[1 << 16];
    char path[4096];
    for (;;) {
        if (epoll_wait(poll, &event, 1, -1) < 1) continue;
        struct connection *c = event.data.ptr;
        if (c == &first) {
            int s = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
            // As many as this process may hold; another takes the next.
            if (s < 0 && errno == EMFILE) epoll_ctl(poll, EPOLL_CTL_DEL, listener, NULL);
            if (s < 0) continue;
            c = calloc(1, sizeof *c);
            snprintf(path, sizeof path, "%s/%d", argv[2], count);
            *c = (struct connection){.socket = s, .file = discard ? -1 : open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644), .number = count++};
            if (urgent) setsockopt(s, SOL_SOCKET, SO_OOBINLINE, &yes, sizeof yes);
            setsockopt(s, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
            event = (struct epoll_event){.events = EPOLLIN, .data.ptr = c};
            epoll_ctl(poll, EPOLL_CTL_ADD, s, &event);
            continue;
        }
        if (c == &second) {
            ssize_t n = recv(datagrams, bytes, sizeof bytes, 0);
            snprintf(path, sizeof path, "%s/datagrams", argv[2]);
            FILE *f = fopen(path, "a");
            for (ssize_t i = 0; f && i < n; i++) fprintf(f, "%02x", bytes[i]);
            if (f) fputs("\n", f), fclose(f);
            continue;
        }
        ssize_t n = recv(c->socket, bytes, sizeof bytes, 0);
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) continue;
        if (n <= 0) { end(argv[2], c, n == 0 ? "closed" : "reset"); continue; }
        if (c->file >= 0 && write(c->file, bytes, (size_t)n) != n) return 1;
        for (ssize_t i = 0; i < n && !quiet; i++) {
            c->matched = bytes[i] == "\r\n\r\n"[c->matched] ? c->matched + 1 : bytes[i] == '\r';
            if (c->matched < 4) continue;
            c->matched = 0;
            if (send(c->socket, answer, sizeof answer - 1, MSG_NOSIGNAL) < 0) break;
        }
    }
}
