// The fix adds a thread-local variable.
// shape: program
// before: x
// after: x
// expect: refused tls-changed
#include "scenario.h"
static __thread int mine = 7;
#ifdef FIXED
static __thread int more = 3;
#endif
kept static int get(void) {
    mine++;
#ifdef FIXED
    return mine + more++;
#endif
    return mine;
}
static const char *answer(void) { return get() > 0 ? "x" : "y"; }
int main(void) { serve(answer, NULL, NULL); }
