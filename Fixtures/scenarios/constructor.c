// The fix changes what runs when the library is loaded.
// shape: library
// before: 1
// after: 2
// expect: refused unconfirmed-function
#include "scenario.h"
#ifdef LIBRARY
static int ready;
__attribute__((constructor)) static void start(void) {
#ifdef FIXED
    ready = 2;
#else
    ready = 1;
#endif
}
int state(void) { return ready; }
void reset(int n) { ready = n; }
#else
int state(void);
static const char *answer(void) { static char text[16]; sprintf(text, "%d", state()); return text; }
int main(void) { serve(answer, NULL, NULL); }
#endif
