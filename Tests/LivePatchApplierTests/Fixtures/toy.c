/* The library that is patched. The fix: answer() adds two instead of one and counts, say() has another string. */
#include <unistd.h>
static int base = 40;
__attribute__((noinline)) int toy_base(void) { return base; }
__attribute__((noinline)) void toy_set_base(int n) { base = n; }
#ifdef FIXED
static int calls;
__attribute__((noinline)) static int more(int x) { calls++; return x + 2; }
int answer(int x) { return more(base + x); }
const char *say(int x) { return x > 1000 ? "far too many, says the fixed version" : "the fixed version"; }
int wait_inside(int fd) { char c; int n = (int)read(fd, &c, 1); return n + 20; }
#else
int answer(int x) { return base + x + 1; }
const char *say(int x) { return x > 1000 ? "too many" : "the old version"; }
int wait_inside(int fd) { char c; int n = (int)read(fd, &c, 1); return n + 10; }
#endif
