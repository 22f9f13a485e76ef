// The fix takes an exported function away, which others may call.
// shape: library
// before: 1 -4
// after: 1 1
// expect: refused removed-function
#include "scenario.h"
#ifdef LIBRARY
#ifndef FIXED
int legacy(int n) { return n; }
#endif
int current(int n) {
#ifdef FIXED
    if (n < 0) n = 0;
#endif
    return n + 1;
}
#else
int legacy(int), current(int);
static const char *answer(void) { static char text[16]; sprintf(text, "%d %d", legacy(1), current(-5)); return text; }
int main(void) { serve(answer, NULL, NULL); }
#endif
