// The entry lies across a page boundary: refused, never half written.
// shape: library
// before: 256
// after: 128
// expect: refused site-straddles-page
#include "scenario.h"
#ifdef LIBRARY
__asm__(".text\n.p2align 12\n.skip 4093, 0xcc\n.globl across\n.type across,@function\nacross:\n.cfi_startproc\n"
#ifdef FIXED
        "mov %edi, %eax\nand $0x7f, %eax\nadd $1, %eax\nret\n"
#else
        "mov %edi, %eax\nand $0x3ff, %eax\nadd $1, %eax\nret\n"
#endif
        ".cfi_endproc\n.size across,.-across\n.skip 64, 0xcc\n");
int other(int n) { return n; }
#else
int across(int), other(int);
static const char *answer(void) { static char text[16]; sprintf(text, "%d", across(255)); return text; }
int main(void) { serve(answer, NULL, NULL); }
#endif
