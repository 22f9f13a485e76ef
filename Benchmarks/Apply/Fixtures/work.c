// The library that is patched: three functions of two instructions, of which the first covers the bytes of a jump. The fixed
// ones have two as well.
#ifdef FIXED
#define FORM(old, new) (new)
#else
#define FORM(old, new) (old)
#endif
__attribute__((noipa)) unsigned work_one(unsigned x) { return FORM(x + 0x10000, 2 * x); }
__attribute__((noipa)) unsigned work_two(unsigned x) { return FORM(x + 0x20000, 3 * x); }
__attribute__((noipa)) unsigned work_three(unsigned x) { return FORM(x + 0x30000, 5 * x); }
