// The same, while four threads call all the time.
// shape: program
// before: 30 0
// after: 70 0
// expect: patched
#include "scenario.h"
static volatile long wrong;
kept static int stays(int n) { return n * 10; }
kept static int fixed(int n) {
#ifdef FIXED
    return stays(n) + stays(n + 1);
#else
    return stays(n);
#endif
}
static void *load(void *unused) {
    for (unsigned i = 0;; i++) {
        int r = fixed(3);
        if (r != 30 && r != 70) wrong++;
        if (i % 64 == 0) usleep(100);
    }
    return unused;
}
static const char *answer(void) { static char text[32]; sprintf(text, "%d %ld", fixed(3), wrong); return text; }
int main(void) {
    pthread_t t;
    for (int i = 0; i < 4; i++) pthread_create(&t, NULL, load, NULL);
    serve(answer, NULL, NULL);
}
