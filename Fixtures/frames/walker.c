// Calls the library and looks at its own stack, as each line of input says:
//   version      which build answers
//   depth        how many frames backtrace(3) finds from inside a callback of the library; loads libgcc_s if nobody has
//   stay         says "inside" from there and waits for a line
#include "frames.h"
#include <execinfo.h>
#include <stdio.h>
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
    if (!strcmp(line, "depth\n")) return frames_call(depth, NULL);
    if (!strcmp(line, "stay\n")) return frames_call(stay, NULL);
    return -9;
}

int main(void) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    puts("ready");
    while (fgets(line, sizeof line, stdin)) printf("%d\n", answer());
    return 0;
}
