// A recursive function, and two that call each other.
// shape: library
// before: 1 1 30
// after: -1 1 20
// expect: patched
#include "scenario.h"
#ifdef LIBRARY
int even(int n);
kept int odd(int n) { return n == 0 ? 0 : even(n - 1); }
kept int even(int n) {
#ifdef FIXED
    if (n < 0) return -1;
#endif
    return n <= 0 ? 1 : odd(n - 1);
}
kept int depth(int n) {
#ifdef FIXED
    if (n > 20) return 20;
#endif
    return n ? 1 + depth(n - 1) : 0;
}
#else
int even(int), depth(int);
static const char *answer(void) { static char text[16]; sprintf(text, "%d %d %d", even(-3), even(8), depth(30)); return text; }
int main(void) { serve(answer, NULL, NULL); }
#endif
