// Patched code uses data of the C library: stderr and errno.
// shape: program
// before: 9
// after: 5
// expect: patched or refused
#include "scenario.h"
#include <errno.h>
kept static int report(FILE *to) { return fputs("", to); }
kept static int complain(int n) {
    errno = n;
#ifdef FIXED
    if (n > 5) { report(stderr); errno = 5; }
#endif
    return report(stderr) + errno;
}
static const char *answer(void) { static char text[16]; sprintf(text, "%d", complain(9) - report(stdout)); return text; }
int main(void) { serve(answer, NULL, NULL); }
