// A fixed function of a library calls the C library.
// shape: library
// before: xxxxxxxxxxxxxxxxxxxx
// after: xxxxxxxx
// expect: patched
#include "scenario.h"
#ifdef LIBRARY
void clear(char *s, size_t n) { memset(s, 'o', n); s[n] = 0; }
void fill(char *s, size_t n) {
#ifdef FIXED
    if (n > 8) n = 8;
#endif
    memset(s, 'x', n);
    s[n] = 0;
}
#else
void fill(char *, size_t), clear(char *, size_t);
static const char *answer(void) { static char text[64]; fill(text, 20); return text; }
int main(void) { serve(answer, NULL, NULL); }
#endif
