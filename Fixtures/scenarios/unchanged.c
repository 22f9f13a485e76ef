// The fix changes nothing that runs.
// shape: library
// before: same
// after: same
// expect: nothing to do
#include "scenario.h"
#ifdef LIBRARY
int plain(int n) { return n; }
#else
int plain(int);
static const char *answer(void) { return plain(1) ? "same" : "?"; }
int main(void) { serve(answer, NULL, NULL); }
#endif
