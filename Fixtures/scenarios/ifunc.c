// An indirect function chose its implementation at the start; the implementation is fixed.
// shape: library
// before: 99
// after: 50
// expect: patched or refused
#include "scenario.h"
#ifdef LIBRARY
kept static int plain(int n) {
#ifdef FIXED
    if (n > 50) return 50;
#endif
    return n;
}
static int (*choose(void))(int) { return plain; }
int chosen(int) __attribute__((ifunc("choose")));
#else
int chosen(int);
static const char *answer(void) { static char text[16]; sprintf(text, "%d", chosen(99)); return text; }
int main(void) { serve(answer, NULL, NULL); }
#endif
