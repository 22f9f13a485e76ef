// One function of a library is fixed.
// shape: library
// before: -6 5
// after: 0 5
// expect: patched
#include "scenario.h"
#ifdef LIBRARY
int scale(int n) {
#ifdef FIXED
    if (n < 0) return 0;
#endif
    return n * 3;
}
int other(int n) { return n ^ 1; }
#else
int scale(int), other(int);
static const char *answer(void) { static char text[16]; sprintf(text, "%d %d", scale(-2), other(4)); return text; }
int main(void) { serve(answer, NULL, NULL); }
#endif
