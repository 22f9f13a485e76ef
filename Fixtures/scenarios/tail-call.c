// Patched functions are jumped to, and jump to others.
// shape: library
// before: 2 20
// after: 4 6
// expect: patched
#include "scenario.h"
#ifdef LIBRARY
kept int last(int n) {
#ifdef FIXED
    if (n > 6) return 6;
#endif
    return n;
}
kept int middle(int n) {
#ifdef FIXED
    n += 1;
#endif
    return last(n * 2);
}
kept int first(int n) { return middle(n + 1); }
#else
int first(int);
static const char *answer(void) { static char text[16]; sprintf(text, "%d %d", first(0), first(9)); return text; }
int main(void) { serve(answer, NULL, NULL); }
#endif
