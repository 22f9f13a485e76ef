// Leaf functions that keep data below the stack pointer.
// shape: library
// before: 324 0
// after: 300 0
// expect: patched
#include "scenario.h"
#ifdef LIBRARY
int leaf(int n) {
    volatile int a[24];
    for (int i = 0; i < 24; i++) a[i] = n + i;
    int s = 0;
    for (int i = 0; i < 24; i++) s += a[i];
#ifdef FIXED
    s -= s % 100;
#endif
    return s;
}
#else
int leaf(int);
static volatile long wrong;
static void *load(void *unused) {
    for (unsigned i = 0;; i++) {
        int r = leaf(1);
        if (r != 300) wrong++;
        if (i % 64 == 0) usleep(100);
    }
    return unused;
}
static const char *answer(void) { static char text[32]; sprintf(text, "%d %ld", leaf(2), wrong); return text; }
int main(void) {
    pthread_t t;
    pthread_create(&t, NULL, load, NULL);
    serve(answer, NULL, NULL);
}
#endif
