// A switch with a table, of which the fix changes one case.
// shape: library
// before: 77 12 4
// after: 0 12 104
// expect: patched
#include "scenario.h"
#ifdef LIBRARY
int kind(int n) {
    switch (n) {
    case 0: return 11;
    case 1: return 5;
    case 2: return 123;
    case 3: return 9;
#ifdef FIXED
    case 4: return 0;
#else
    case 4: return 77;
#endif
    case 5: return 31;
    case 6: return n * 2;
    default: return -1;
    }
}
int pick(int n, int (*f)(int)) {
    switch (n) {
    case 0: return f(1);
    case 1: return f(2) + 1;
    case 2: return f(3) * 2;
#ifdef FIXED
    case 3: return f(4) + 100;
#else
    case 3: return f(4);
#endif
    case 4: return f(5) - 3;
    case 5: return f(6) ^ 1;
    default: return f(0);
    }
}
#else
int kind(int), pick(int, int (*)(int));
static int same(int n) { return n; }
static const char *answer(void) { static char text[16]; sprintf(text, "%d %d %d", kind(4), kind(6), pick(3, same)); return text; }
int main(void) { serve(answer, NULL, NULL); }
#endif
