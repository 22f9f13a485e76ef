// A library is fixed; another copy of its code under another name is not its business.
// shape: library
// before: 8 8
// after: 1 8
// expect: patched
#include "scenario.h"
#ifdef LIBRARY
int first(int n) {
#ifdef FIXED
    if (n > 1) n = 1;
#endif
    return n > 1000 ? n / 7 : n;
}
#else
int first(int);
kept static int own(int n) { return n; }
static const char *answer(void) { static char text[16]; sprintf(text, "%d %d", first(8), own(8)); return text; }
int main(void) { serve(answer, NULL, NULL); }
#endif
