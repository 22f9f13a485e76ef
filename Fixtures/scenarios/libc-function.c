// The fix calls a function of the C library that the program calls elsewhere.
// shape: program
// before: 6 2
// after: 3 2
// expect: patched
// flags: -fno-builtin
#include "scenario.h"
kept static size_t elsewhere(const char *s) { return strlen(s); }
kept static size_t length(const char *s) {
#ifdef FIXED
    size_t n = strlen(s);
    return n > 3 ? 3 : n;
#else
    size_t n = 0;
    while (s[n] && n < 100) n += 2;
    return n;
#endif
}
static const char *answer(void) { static char text[32]; sprintf(text, "%zu %zu", length("abcdef"), elsewhere("ab")); return text; }
int main(void) { serve(answer, NULL, NULL); }
