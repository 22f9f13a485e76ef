// Fixed functions that the library does not export, of every visibility.
// shape: library
// before: 1111
// after: 1115
// expect: patched or refused
#include "scenario.h"
#ifdef LIBRARY
__attribute__((visibility("hidden"))) int hidden_one(int n);
__attribute__((visibility("internal"))) int internal_one(int n);
#ifdef FIXED
#define MORE 1
#else
#define MORE 0
#endif
kept static int static_one(int n) { return n + 1 + MORE; }
kept int hidden_one(int n) { return static_one(n) + 10 + MORE; }
kept int internal_one(int n) { return hidden_one(n) + 100 + MORE; }
__attribute__((visibility("protected"))) int protected_one(int n) { return internal_one(n) + 1000 + MORE; }
#else
int protected_one(int);
static const char *answer(void) { static char text[16]; sprintf(text, "%d", protected_one(0)); return text; }
int main(void) { serve(answer, NULL, NULL); }
#endif
