#include "frames.h"

static int calls;

__attribute__((noipa)) int frames_call(int (*inside)(void *), void *argument) {
    volatile char room[200];
    room[0] = 1;
    int result = inside(argument);
#ifdef FIXED
    if (result < 0) return -2;
#endif
    calls++;
    return result + room[0];
}

__attribute__((noipa)) int frames_version(void) {
#ifdef FIXED
    return 2;
#else
    return 1;
#endif
}

__attribute__((noipa)) int frames_other(int x) {
#ifdef OTHER
    if (x > 100) return -1;
#endif
    return x * 3 + 1;
}

// Two functions that the fix leaves alone tell where the data is, even without symbols.
__attribute__((noipa)) int frames_calls(void) { return calls; }
__attribute__((noipa)) void frames_calls_from(int first) { calls = first; }
