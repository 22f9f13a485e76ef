// The fix adds a function, and a function that calls it.
// shape: program
// before: 101
// after: 0
// expect: patched
#include "scenario.h"
#ifdef FIXED
kept static int check(int n) { return n < 0 || n > 99 ? -1 : n; }
kept static int check_twice(int n) { return check(check(n)); }
#endif
kept static int use(int n) {
#ifdef FIXED
    n = check_twice(n);
#endif
    return n > 1000 ? n / 7 : n + 1;
}
static const char *answer(void) { static char text[16]; sprintf(text, "%d", use(100)); return text; }
int main(void) { serve(answer, NULL, NULL); }
