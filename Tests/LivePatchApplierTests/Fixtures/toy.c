/* The library that is patched. The fix: answer() adds two instead of one and counts, say() has another string. */
#include <unistd.h>
static int base = 40;
__attribute__((noinline)) int toy_base(void) { return base; }
__attribute__((noinline)) void toy_set_base(int n) { base = n; }
#ifdef SPREAD /* the functions in pages of their own, with -fno-toplevel-reorder */
#define FILL(n) void fill_##n(void) { __asm__ volatile(".fill 4096, 1, 0x90"); }
#else
#define FILL(n)
#endif
#ifdef FIXED
static int calls;
__attribute__((noinline)) static int more(int x) { calls++; return x + 2; }
int answer(int x) { return more(base + x); }
FILL(one)
const char *say(int x) { return x > 1000 ? "far too many, says the fixed version" : "the fixed version"; }
FILL(two)
int wait_inside(int fd) { char c; int n = (int)read(fd, &c, 1); return n + 20; }
#else
int answer(int x) { return base + x + 1; }
FILL(one)
const char *say(int x) { return x > 1000 ? "too many" : "the old version"; }
FILL(two)
int wait_inside(int fd) { char c; int n = (int)read(fd, &c, 1); return n + 10; }
#endif
