// Network namespaces that cannot outlive the test that made them.
//   inside hold                 a new network namespace with loopback up; prints "ready"; gone when its input ends
//   inside exec PID COMMAND...  becomes COMMAND in the namespace of PID
//   inside keep PID COMMAND...  the same as a child, whose pid it prints; the child ends when this process or its input does
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static void fail(const char *what) {
    fprintf(stderr, "inside: %s: %s\n", what, strerror(errno));
    exit(111);
}

static void hold(void) {
    if (unshare(CLONE_NEWNET) != 0) fail("unshare");
    int s = socket(AF_INET, SOCK_DGRAM, 0);
    struct ifreq request = {0};
    strcpy(request.ifr_name, "lo");
    request.ifr_flags = IFF_UP | IFF_RUNNING;
    if (s < 0 || ioctl(s, SIOCSIFFLAGS, &request) != 0) fail("lo");
    puts("ready");
    fflush(stdout);
    char byte;
    while (read(0, &byte, 1) > 0) {}
}

static void enter(const char *pid) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%s/ns/net", pid);
    int ns = open(path, O_RDONLY | O_CLOEXEC);
    if (ns < 0 || setns(ns, CLONE_NEWNET) != 0) fail(path);
}

static int keep(char **command) {
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, NULL);
    pid_t child = fork();
    if (child < 0) fail("fork");
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        int null = open("/dev/null", O_RDONLY);
        dup2(null, 0);
        sigprocmask(SIG_UNBLOCK, &all, NULL);
        printf("%d\n", getpid());
        fflush(stdout);
        execvp(command[0], command);
        fail(command[0]);
    }
    close(1);
    int signals = signalfd(-1, &all, SFD_CLOEXEC), input = 0;
    for (;;) {
        struct pollfd ends[2] = {{.fd = input, .events = POLLIN}, {.fd = signals, .events = POLLIN}};
        poll(ends, 2, -1);
        if (ends[1].revents) {
            struct signalfd_siginfo info;
            if (read(signals, &info, sizeof info) != sizeof info) continue;
            if (info.ssi_signo != SIGCHLD) kill(child, (int)info.ssi_signo);
            int status;
            if (waitpid(child, &status, WNOHANG) == child) return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
        }
        char byte;
        if (ends[0].revents && read(input, &byte, 1) <= 0) {
            kill(child, SIGTERM);
            struct timespec limit = {.tv_sec = 2};
            sigset_t ended;
            sigemptyset(&ended);
            sigaddset(&ended, SIGCHLD);
            sigtimedwait(&ended, NULL, &limit);
            kill(child, SIGKILL);
            return 112;
        }
    }
}

int main(int argc, char **argv) {
    if (argc == 2 && !strcmp(argv[1], "hold")) return hold(), 0;
    if (argc < 4) return 64;
    enter(argv[2]);
    if (!strcmp(argv[1], "keep")) return keep(argv + 3);
    execvp(argv[3], argv + 3);
    fail(argv[3]);
}
