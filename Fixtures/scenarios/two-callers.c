// A patched function is called from the library, through the PLT, and through a pointer.
// shape: library
// before: 21 42 21
// after: 10 20 10
// expect: patched
#include "scenario.h"
#ifdef LIBRARY
int core(int n) {
#ifdef FIXED
    if (n > 9) n = 9;
#endif
    return n + 1;
}
int inside(int n) { return core(n) * 2; }
#else
int core(int), inside(int);
static int (*volatile pointer)(int) = core;
static const char *answer(void) { static char text[32]; sprintf(text, "%d %d %d", core(20), inside(20), pointer(20)); return text; }
int main(void) { serve(answer, NULL, NULL); }
#endif
