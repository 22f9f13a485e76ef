// The fix adds a variable, and the patch keeps what is in it.
// shape: library
// before: 1 40
// after: 1001 40
// expect: patched or refused
#include "scenario.h"
#ifdef LIBRARY
static int base = 40;
int get_base(void) { return base; }
void set_base(int n) { base = n; }
int count(int n) {
#ifdef FIXED
    static int sum;
    sum += n;
    return n > 1000 ? sum / 7 : 1000 + sum;
#else
    return n > 1000 ? n / 7 : n;
#endif
}
#else
int count(int), get_base(void);
static const char *answer(void) {
    static char text[32];
    int n = count(1);
    if (n > 1000) n = 1000 + count(1) - n;
    sprintf(text, "%d %d", n, get_base());
    return text;
}
int main(void) { serve(answer, NULL, NULL); }
#endif
