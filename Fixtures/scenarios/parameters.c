// Many arguments, of every class, and structures by value go through a patched function untouched.
// shape: library
// before: 134 5 45.0
// after: 1134 1005 1045.0
// expect: patched or review
#include "scenario.h"
#ifdef LIBRARY
struct big { long a[5]; };
struct pair { double x; long n; };
#ifdef FIXED
#define EXTRA 1000
#else
#define EXTRA 0
#endif
long many(long a, long b, long c, long d, long e, long f, long g, long h, double i, float j, struct big k, struct pair l, char m) {
    return a + 2 * b + 3 * c + 4 * d + 5 * e + 6 * f + 7 * g + 8 * h + (long)(i * 10) + (long)(j * 100) + k.a[4] + (long)l.x + l.n + m + EXTRA;
}
struct big make(long n) {
    struct big b = {{n, n + 1, n + 2, n + 3, n + 4 + EXTRA}};
    return b;
}
double sum(int n, ...) {
    __builtin_va_list list;
    double total = EXTRA;
    __builtin_va_start(list, n);
    for (int i = 0; i < n; i++) total += __builtin_va_arg(list, double);
    __builtin_va_end(list);
    return total;
}
#else
struct big { long a[5]; };
struct pair { double x; long n; };
long many(long, long, long, long, long, long, long, long, double, float, struct big, struct pair, char);
struct big make(long);
double sum(int, ...);
static const char *answer(void) {
    static char text[64];
    struct big k = {{0, 0, 0, 0, 50}};
    struct pair l = {7, 8};
    sprintf(text, "%ld %ld %.1f", many(1, 1, 1, 1, 1, 1, 1, 1, 0.5, 0.25f, k, l, 3), make(1).a[4], sum(9, 1., 2., 3., 4., 5., 6., 7., 8., 9.));
    return text;
}
int main(void) { serve(answer, NULL, NULL); }
#endif
