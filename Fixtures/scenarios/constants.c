// The fix brings strings, a table and a floating-point constant of its own.
// shape: program
// before: two, many, 6.283
// after: a pair, many, says the fix, 5.437
// expect: patched or refused
#include "scenario.h"
kept static const char *name(int n) {
#ifdef FIXED
    static const char *const names[] = {"none", "one", "a pair", "three of them"};
    return n < 4 ? names[n] : "many, says the fix";
#else
    static const char *const names[] = {"none", "one", "two"};
    return n < 3 ? names[n] : "many";
#endif
}
kept static double weight(int n) {
#ifdef FIXED
    return n * 2.718281828;
#else
    return n * 3.141592653;
#endif
}
static const char *answer(void) { static char text[64]; sprintf(text, "%s, %s, %.3f", name(2), name(7), weight(2)); return text; }
int main(void) { serve(answer, NULL, NULL); }
