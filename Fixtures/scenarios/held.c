// A thread stays in the old function: it is waited for, and the patch goes in when it has left.
// shape: library
// before: 9
// after: 5
// expect: patched after leave
#include "scenario.h"
#ifdef LIBRARY
int hold(int (*wait)(void), int n) {
    wait();
#ifdef FIXED
    if (n > 5) n = 5;
#endif
    return n;
}
#else
int hold(int (*)(void), int);
static int nothing(void) { return 0; }
static void *body(void *unused) { hold(scenario_wait, 1); return unused; }
static void enter(void) { scenario_enter(body); }
static const char *answer(void) { static char text[16]; sprintf(text, "%d", hold(nothing, 9)); return text; }
int main(void) { serve(answer, enter, scenario_leave); }
#endif
