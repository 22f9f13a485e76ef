#include "target.h"
#include <string.h>

int target_calls;

__attribute__((noipa)) int target_verdict(int x) {
#ifdef FIXED
    if (x > 100) return -1;
#endif
    target_calls++;
    return x * 3 + 1;
}

__attribute__((noipa)) const char *target_greeting(void) {
    target_calls++;
#ifdef FIXED
    return "greetings from the fixed build";
#else
    return "greetings from the old build";
#endif
}

__attribute__((noipa)) int target_hold(int (*inside)(void *), void *argument) {
    int result = inside(argument);
#ifdef FIXED
    if (result < 0) return -2;
#endif
    target_calls++;
    return result + 1;
}

// Two functions that the fix leaves alone tell where the data is, even without symbols.
__attribute__((noipa)) int target_count(void) { return target_calls; }
__attribute__((noipa)) void target_count_from(int first) { target_calls = first; }
