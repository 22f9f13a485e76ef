// The library that is patched in tests of exceptions.
struct FramesError {
    int code;
};
// Throws FramesError for n above a limit.
int frames_throw(int n);
// What `inside` returns, plus one; an object is destroyed whatever happens.
int frames_through(int (*inside)(int), int n, int *destroyed);
// What `inside` returns, or minus the code of the FramesError that it throws, or -1000 for a std::exception.
int frames_catch(int (*inside)(int), int n, int *destroyed);
