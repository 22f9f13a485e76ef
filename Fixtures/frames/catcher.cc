// Throws through the library, catches what it throws, and lets it catch, as each line of input says:
// The argument is a library to load first.
//   throw, through, catch, quiet, foreign    one call, and what came of it
//   threads N                                threads that do all of it over and over
//   load                                     "CALLS BAD" of the threads so far
//   cancel                                   a thread is cancelled inside a callback: 1 if its objects were destroyed
#include "thrower.h"
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <pthread.h>
#include <stdexcept>
#include <unistd.h>

static std::atomic<long> calls, bad;

static int thrower(int n) {
    if (n == 60) throw std::runtime_error("sixty");
    return frames_throw(n);
}
static int call_throw() {
    try {
        return frames_throw(200);
    } catch (const FramesError &error) {
        return error.code;
    }
}
static int call_through(int n, int *destroyed) {
    try {
        return frames_through(thrower, n, destroyed);
    } catch (const FramesError &error) {
        return error.code;
    }
}

static void *load(void *) {
    for (;;) {
        int destroyed = 0;
        int thrown = call_throw(), through = call_through(300, &destroyed), caught = frames_catch(thrower, 400, &destroyed);
        int foreign = frames_catch(thrower, 60, &destroyed), quiet = call_through(50, &destroyed);
        bool ok = (thrown == 200 || thrown == 201) && (through == 300 || through == 301) && (caught == -400 || caught == -401) &&
                  foreign == -1000 && (quiet == 101 || quiet == -50) && destroyed == 6;
        if (!ok) bad++;
        calls += 5;
        // Safe moments come now and then.
        usleep(300);
    }
    return nullptr;
}

static std::atomic<int> inside, destroyed_outside, destroyed_inside;
struct Outside {
    ~Outside() { destroyed_outside++; }
};
static int wait_for_ever(int) {
    inside = 1;
    for (;;) pause();
}
static void *cancelled(void *) {
    Outside outside;
    static int destroyed;
    destroyed = 0;
    struct Report {
        ~Report() { destroyed_inside = destroyed; }
    } report;
    return reinterpret_cast<void *>(static_cast<long>(frames_through(wait_for_ever, 1, &destroyed)));
}
static int cancel() {
    pthread_t thread;
    void *result;
    inside = destroyed_outside = destroyed_inside = 0;
    if (pthread_create(&thread, nullptr, cancelled, nullptr)) exit(2);
    while (!inside) usleep(200);
    pthread_cancel(thread);
    pthread_join(thread, &result);
    return result == PTHREAD_CANCELED && destroyed_outside == 1 && destroyed_inside == 1;
}

int main(int argc, char **argv) {
    if (argc > 1 && !dlopen(argv[1], RTLD_NOW)) return 2;
    char line[64];
    setvbuf(stdout, nullptr, _IOLBF, 0);
    puts("ready");
    while (fgets(line, sizeof line, stdin)) {
        int destroyed = 0;
        if (!strcmp(line, "throw\n")) printf("%d\n", call_throw());
        else if (!strcmp(line, "through\n")) printf("%d\n", call_through(300, &destroyed));
        else if (!strcmp(line, "catch\n")) printf("%d\n", frames_catch(thrower, 400, &destroyed));
        else if (!strcmp(line, "foreign\n")) printf("%d\n", frames_catch(thrower, 60, &destroyed));
        else if (!strcmp(line, "quiet\n")) printf("%d\n", frames_catch(thrower, 50, &destroyed));
        else if (!strncmp(line, "threads ", 8)) {
            pthread_t thread;
            for (int n = atoi(line + 8); n > 0; n--)
                if (pthread_create(&thread, nullptr, load, nullptr)) exit(2);
            puts("started");
        } else if (!strcmp(line, "load\n")) printf("%ld %ld\n", calls.load(), bad.load());
        else if (!strcmp(line, "cancel\n")) printf("%d\n", cancel());
        else puts("?");
    }
    return 0;
}
