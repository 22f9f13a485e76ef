// The loader rewrites the code of the library: refused.
// shape: library
// before: 0
// after: 7
// expect: refused text-relocations
// link: -Wl,-z,notext
#include "scenario.h"
#ifdef LIBRARY
int plain(int n) {
#ifdef FIXED
    if (!n) return 7;
#endif
    return n;
}
__asm__(".text\n.globl where\n.type where,@function\nwhere:\n.cfi_startproc\nmovabs $plain, %rax\nret\n.cfi_endproc\n.size where,.-where\n");
#else
int plain(int);
static const char *answer(void) { static char text[16]; sprintf(text, "%d", plain(0)); return text; }
int main(void) { serve(answer, NULL, NULL); }
#endif
