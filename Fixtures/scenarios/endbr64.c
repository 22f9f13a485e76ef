// Entries begin with ENDBR64, and go on beginning with it.
// shape: library
// before: 9 f30f1efa
// after: 3 f30f1efa
// expect: patched
// flags: -fcf-protection
#include "scenario.h"
#ifdef LIBRARY
int marked(int n) {
#ifdef FIXED
    if (n > 3) n = 3;
#endif
    return n > 1000 ? n / 7 : n;
}
#else
int marked(int);
static const char *answer(void) {
    static char text[32];
    const unsigned char *code = (const unsigned char *)marked;
    sprintf(text, "%d %02x%02x%02x%02x", marked(9), code[0], code[1], code[2], code[3]);
    return text;
}
int main(void) { serve(answer, NULL, NULL); }
#endif
