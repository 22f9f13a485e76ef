// A small library in two builds, as a distribution would have them: vulnerable, and fixed (-DFIXED).
#ifndef TARGET_H
#define TARGET_H
/// Calls so far; old writable data that the new code goes on using.
extern int target_calls;
/// 3x + 1; the fixed build refuses x above 100 with -1.
int target_verdict(int x);
/// A string that lives in the library, or in the patch.
const char *target_greeting(void);
/// Calls `inside` and returns its result + 1; the fixed build turns negative results into -2.
int target_hold(int (*inside)(void *), void *argument);
int target_count(void);
void target_count_from(int first);
#endif
