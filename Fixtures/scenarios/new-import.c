// The fix calls a function of the C library that the old build does not import.
// shape: program
// before: 1
// after: 31
// expect: patched
#include "scenario.h"
kept static int parse(const char *s) {
#ifdef FIXED
    return (int)strtol(s, NULL, 16);
#else
    return s[0] - '0';
#endif
}
static const char *answer(void) { static char text[16]; sprintf(text, "%d", parse("1f")); return text; }
int main(void) { serve(answer, NULL, NULL); }
