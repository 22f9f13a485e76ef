// A thread blocked in read inside code that stays does not see the patch.
// shape: library
// before: 1 0
// after: 2 0
// expect: patched, entered
#include "scenario.h"
#ifdef LIBRARY
int fixed(int n) {
#ifdef FIXED
    n++;
#endif
    return n > 1000 ? n / 7 : n;
}
#else
#include <errno.h>
int fixed(int);
static int error;
static void *body(void *unused) {
    int n = scenario_wait();
    if (n < 0) error = errno;
    return unused;
}
static void enter(void) { scenario_enter(body); }
static const char *answer(void) { static char text[32]; sprintf(text, "%d %d", fixed(1), error); return text; }
int main(void) { serve(answer, enter, scenario_leave); }
#endif
