// A program and its library are fixed, each by a patch of its own.
// shape: both
// before: 10 20
// after: 11 21
// expect: patched
#include "scenario.h"
#ifdef LIBRARY
int of_library(int n) {
#ifdef FIXED
    n++;
#endif
    return n > 1000 ? n / 7 : n;
}
#else
int of_library(int);
kept static int of_program(int n) {
#ifdef FIXED
    n++;
#endif
    return n > 1000 ? n / 7 : n;
}
static const char *answer(void) { static char text[16]; sprintf(text, "%d %d", of_program(10), of_library(20)); return text; }
int main(void) { serve(answer, NULL, NULL); }
#endif
