// One function of a program is fixed.
// shape: program
// before: 1000
// after: 200
// expect: patched
#include "scenario.h"
kept static int limit(int n) {
#ifdef FIXED
    if (n > 100) n = 100;
#endif
    return n > 1000 ? n / 7 : n * 2;
}
static const char *answer(void) { static char text[16]; sprintf(text, "%d", limit(500)); return text; }
int main(void) { serve(answer, NULL, NULL); }
