// The library that is patched in tests of unwinding. Its function calls back, so that the caller can look at the stack.
int frames_call(int (*inside)(void *), void *argument);
int frames_version(void);
int frames_other(int x);
int frames_calls(void);
void frames_calls_from(int first);
