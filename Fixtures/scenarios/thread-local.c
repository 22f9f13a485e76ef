// Patched code of a program uses thread-local variables that stay.
// shape: program
// before: 8
// after: 17
// expect: patched or refused
#include "scenario.h"
static __thread int mine = 7;
static __thread int second = 1;
kept static int touch(void) { return second++; }
kept static int get(void) {
#ifdef FIXED
    mine += 10;
#else
    mine += 1;
#endif
    return mine;
}
static void *elsewhere(void *result) { *(int *)result = get() + touch() - 1; return NULL; }
static const char *answer(void) {
    static char text[16];
    int n;
    pthread_t t;
    pthread_create(&t, NULL, elsewhere, &n);
    pthread_join(t, NULL);
    sprintf(text, "%d", n);
    return text;
}
int main(void) { serve(answer, NULL, NULL); }
