// Odd sections and notes in the file are nobody's business.
// shape: library
// before: 0
// after: 7
// expect: patched
#include "scenario.h"
#ifdef LIBRARY
__asm__(".section .note.odd,\"a\",@note\n.long 4,8,77\n.asciz \"Odd\"\n.quad 0x1234567890\n.text\n"
        ".section .comment.more,\"MS\",@progbits,1\n.asciz \"a remark\"\n.text\n"
        ".section .empty,\"a\",@progbits\n.text\n");
int plain(int n) {
#ifdef FIXED
    if (!n) return 7;
#endif
    return n > 1000 ? n / 7 : n;
}
#else
int plain(int);
static const char *answer(void) { static char text[16]; sprintf(text, "%d", plain(0)); return text; }
int main(void) { serve(answer, NULL, NULL); }
#endif
