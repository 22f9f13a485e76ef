// The fix adds a field to a structure that exists.
// shape: library
// before: 9
// after: 9
// expect: refused
#include "scenario.h"
#ifdef LIBRARY
struct item { int a;
#ifdef FIXED
    int guard;
#endif
    int b, c, d; };
struct item *make(void) { struct item *i = calloc(1, sizeof *i); i->b = 2; i->c = 3; i->d = 4; return i; }
int b(struct item *i) { return i->b; }
int c(struct item *i) { return i->c; }
int d(struct item *i) { return i->d; }
int all(struct item *i) { return i->b + i->c + i->d; }
#else
struct item;
struct item *make(void);
int all(struct item *);
static const char *answer(void) { static struct item *i; static char text[16]; if (!i) i = make(); sprintf(text, "%d", all(i)); return text; }
int main(void) { serve(answer, NULL, NULL); }
#endif
