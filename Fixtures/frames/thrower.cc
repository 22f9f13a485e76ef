#include "thrower.h"
#include <exception>

struct Counter {
    int *count;
    explicit Counter(int *count) : count(count) {}
    ~Counter() { ++*count; }
};

__attribute__((noipa)) int frames_throw(int n) {
#ifdef FIXED
    if (n > 100) throw FramesError{n + 1};
#else
    if (n > 100) throw FramesError{n};
#endif
    return n * 2;
}

__attribute__((noipa)) int frames_through(int (*inside)(int), int n, int *destroyed) {
    Counter counter(destroyed);
#ifdef FIXED
    if (n == 50) return -50;
#endif
    return inside(n) + 1;
}

__attribute__((noipa)) int frames_catch(int (*inside)(int), int n, int *destroyed) {
    Counter counter(destroyed);
    try {
        Counter another(destroyed);
#ifdef FIXED
        if (n == 50) return -50;
#endif
        return inside(n);
    } catch (const FramesError &error) {
        return -error.code;
    } catch (const std::exception &) {
        return -1000;
    }
}
