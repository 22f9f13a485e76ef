// Patched code goes on with the static and global variables of the old build.
// shape: library
// before: 33 11011011
// after: 36 12012012
// expect: patched
#include "scenario.h"
#ifdef LIBRARY
static int hidden = 40;
int shown = 2;
static int unset;
int look(void) { return hidden * 1000000 + shown * 1000 + unset; }
int set(int n) { hidden = n; shown = n; unset = n; return hidden + shown + unset; }
int step(void) {
#ifdef FIXED
    hidden += 2;
    shown += 2;
    unset += 2;
#else
    hidden++;
    shown++;
    unset++;
#endif
    return hidden + shown + unset;
}
#else
int step(void), set(int), look(void);
static const char *answer(void) { static char text[32]; set(10); int n = step(); sprintf(text, "%d %d", n, look()); return text; }
int main(void) { serve(answer, NULL, NULL); }
#endif
