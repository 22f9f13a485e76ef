// The fix gives a function that is called through pointers another argument.
// shape: library
// before: 40
// after: 64
// expect: refused or review
#include "scenario.h"
#ifdef LIBRARY
#ifdef FIXED
int convert(int n, int base) { return n * base; }
#else
int convert(int n) { return n * 10; }
#endif
int (*converter)() = (int (*)())convert;
#else
extern int (*converter)();
static const char *answer(void) { static char text[16]; sprintf(text, "%d", converter(4, 16)); return text; }
int main(void) { serve(answer, NULL, NULL); }
#endif
