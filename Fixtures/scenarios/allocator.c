// A thread is inside malloc and dlopen all the time; what is done in the process takes none of their locks.
// shape: library
// before: abcdef
// after: no
// expect: patched
// flags: -fno-builtin
#include "scenario.h"
#ifdef LIBRARY
char *copy(const char *s) {
#ifdef FIXED
    if (strlen(s) > 3) return strdup("no");
#endif
    return strdup(s);
}
size_t measure(const char *s) { return strlen(s); }
#else
#include <dlfcn.h>
char *copy(const char *);
static void *load(void *unused) {
    for (;;) {
        free(malloc(1 + (unsigned)rand() % 100000));
        void *h = dlopen("libc.so.6", RTLD_NOW);
        if (h) dlclose(h);
        free(copy("abc"));
    }
    return unused;
}
static const char *answer(void) { static char text[16]; char *s = copy("abcdef"); snprintf(text, sizeof text, "%s", s); free(s); return text; }
int main(void) {
    pthread_t t;
    pthread_create(&t, NULL, load, NULL);
    pthread_create(&t, NULL, load, NULL);
    serve(answer, NULL, NULL);
}
#endif
