// The same in a library.
// shape: library
// before: 8
// after: 17
// expect: patched
#include "scenario.h"
#ifdef LIBRARY
__thread int of_thread = 7;
int touch(void) { return of_thread; }
int get(void) {
#ifdef FIXED
    of_thread += 10;
#else
    of_thread += 1;
#endif
    return of_thread;
}
#else
int get(void);
static void *elsewhere(void *result) { *(int *)result = get(); return NULL; }
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
#endif
