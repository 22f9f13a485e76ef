// A second fix replaces the first, in the same functions and in more.
// shape: library
// before: 10 20 30
// after: 11 20 30
// last: 12 22 30
// expect: replaced
#include "scenario.h"
#ifdef LIBRARY
int one(int n) {
#if FIXED == 2
    return n + 2;
#elif FIXED == 1
    return n + 1;
#else
    return n;
#endif
}
int two(int n) {
#if FIXED == 2
    return n + 2;
#else
    return n;
#endif
}
int three(int n) { return n; }
#else
int one(int), two(int), three(int);
static const char *answer(void) { static char text[16]; sprintf(text, "%d %d %d", one(10), two(20), three(30)); return text; }
int main(void) { serve(answer, NULL, NULL); }
#endif
