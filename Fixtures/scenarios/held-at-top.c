// A thread runs, and calls nothing, at the top of the old function.
// shape: library
// before: 9
// after: 5
// expect: patched after leave
#include "scenario.h"
#ifdef LIBRARY
int spin(volatile int *until, int n) {
    while (until && *until == 0) {}
#ifdef FIXED
    if (n > 5) n = 5;
#endif
    return n;
}
#else
int spin(volatile int *, int);
static volatile int until;
static void *body(void *unused) { scenario_inside = 1; spin(&until, 1); return unused; }
static void enter(void) { scenario_enter(body); }
static void leave(void) { until = 1; pthread_join(scenario_thread, NULL); }
static const char *answer(void) { static char text[16]; sprintf(text, "%d", spin(NULL, 9)); return text; }
int main(void) { serve(answer, enter, leave); }
#endif
