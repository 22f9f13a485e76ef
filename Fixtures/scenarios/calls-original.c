// Patched code calls functions of the old build that stay.
// shape: program
// before: 30
// after: 70
// expect: patched
#include "scenario.h"
kept static int stays(int n) { return n * 10; }
kept static int fixed(int n) {
#ifdef FIXED
    return stays(n) + stays(n + 1);
#else
    return stays(n);
#endif
}
static const char *answer(void) { static char text[16]; sprintf(text, "%d", fixed(3)); return text; }
int main(void) { serve(answer, NULL, NULL); }
