// The fix starts a variable with another value, which is too late for a running process.
// shape: library
// before: 1000
// after: 10
// expect: refused initial-data-changed
#include "scenario.h"
#ifdef LIBRARY
static int limit = 1000;
void set(int n) { limit = n; }
int check(int n) { return n > limit; }
#ifdef FIXED
#define START 10
#else
#define START 1000
#endif
int levels[4] = {START, 2, 3, 4};
int level(int n) { return levels[n & 3]; }
#else
int level(int), check(int);
static const char *answer(void) { return level(0) == 1000 ? "1000" : "10"; }
int main(void) { serve(answer, NULL, NULL); }
#endif
