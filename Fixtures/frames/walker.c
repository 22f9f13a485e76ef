// Calls the library and looks at its own stack, as each line of input says:
//   version      which build answers
//   other        what the library says of 200
//   depth        how many frames backtrace(3) finds from inside a callback of the library; loads libgcc_s if nobody has
//   stay         says "inside" from there and waits for a line
#include "frames.h"
#include <execinfo.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char line[64];

__attribute__((noipa)) int depth(void *unused) {
    void *frames[64];
    (void)unused;
    return backtrace(frames, 64);
}

__attribute__((noipa)) int stay(void *unused) {
    (void)unused;
    puts("inside");
    return fgets(line, sizeof line, stdin) ? 1 : -1;
}

__attribute__((noipa)) int answer(void) {
    if (!strcmp(line, "version\n")) return frames_version();
    if (!strcmp(line, "other\n")) return frames_other(200);
    if (!strcmp(line, "depth\n")) return frames_call(depth, NULL);
    if (!strcmp(line, "stay\n")) return frames_call(stay, NULL);
    return -9;
}

static void serve(int unused) {
    (void)unused;
    puts("ready");
    while (fgets(line, sizeof line, stdin)) printf("%d\n", answer());
    exit(0);
}

// --in-handler: everything happens in a signal handler, with an unwinder loaded.
int main(int argc, char **argv) {
    // A word on the stack that looks like a return address and is none.
    void *volatile stale = (char *)frames_other + 4;
    (void)stale;
    (void)argv;
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc > 1) {
        depth(NULL);
        signal(SIGUSR1, serve);
        raise(SIGUSR1);
    }
    serve(0);
    return stale == NULL;
}
