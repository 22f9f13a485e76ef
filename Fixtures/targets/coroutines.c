// Coroutines that are suspended inside the library. Arguments: how they are switched, where their stacks are.
//   ucontext | assembly | setjmp        (assembly: as boost.context does it, without a name that anybody could see; -DNAMELESS has only that)
//   heap | mmap | static                (heap: between other allocations, in the middle of [heap])
// Lines: suspend (a coroutine enters target_hold and gives up control there), resume (it goes on and ends),
//        through (a coroutine calls the library, returns from it, and is suspended outside), inside (a coroutine stands in the library, and waits in
//        read on its own stack), and those of questions.h.
#define _GNU_SOURCE
#include "questions.h"
#include <setjmp.h>
#include <stdint.h>
#include <sys/mman.h>
#ifndef NAMELESS
#include <ucontext.h>
#endif
#include <unistd.h>

static int by_assembly;
enum { stack_bytes = 256 << 10 };
static char static_stack[stack_bytes] __attribute__((aligned(64)));

#ifndef NAMELESS
static int by_setjmp;
static ucontext_t main_context, coroutine_context;
static jmp_buf main_jump, coroutine_jump;
#endif
static void *main_sp, *coroutine_sp;

// Saves the registers that a call keeps on the stack, and the stack pointer in *from; goes on at `to`.
void switch_stacks(void **from, void *to) __attribute__((visibility("hidden")));
__asm__(
    ".text\n.type switch_stacks,@function\n.hidden switch_stacks\nswitch_stacks:\n"
    "push %rbp\npush %rbx\npush %r12\npush %r13\npush %r14\npush %r15\n"
    "mov %rsp, (%rdi)\nmov %rsi, %rsp\n"
    "pop %r15\npop %r14\npop %r13\npop %r12\npop %rbx\npop %rbp\nret\n"
    ".size switch_stacks,.-switch_stacks\n");

static void yield(void) {
    if (by_assembly) switch_stacks(&coroutine_sp, main_sp);
#ifndef NAMELESS
    else if (by_setjmp) { if (!_setjmp(coroutine_jump)) _longjmp(main_jump, 1); }
    else swapcontext(&coroutine_context, &main_context);
#endif
}
static int yield_inside(void *unused) {
    (void)unused;
    yield();
    return 1;
}
static int read_inside(void *unused) {
    char byte;
    (void)unused;
    say("inside");
    while (read(0, &byte, 1) == 1 && byte != '\n') {}
    return 1;
}
static int nothing(void *unused) {
    (void)unused;
    return 1;
}
static int result, mode;
static void body(void) {
    if (mode == 1) {
        result = target_hold(nothing, NULL);
        yield();
    } else {
        result = target_hold(mode == 2 ? read_inside : yield_inside, NULL);
    }
    for (;;) yield();
}
static void enter(void) {
    if (by_assembly) switch_stacks(&main_sp, coroutine_sp);
#ifndef NAMELESS
    else if (by_setjmp) { if (!_setjmp(main_jump)) _longjmp(coroutine_jump, 1); }
    else swapcontext(&main_context, &coroutine_context);
#endif
}
static char *stack;
static void start(int what) {
    mode = what;
    if (by_assembly) {
        void **top = (void **)((uintptr_t)(stack + stack_bytes) & ~(uintptr_t)15);
        *--top = NULL;
        *--top = (void *)body;
        for (int i = 0; i < 6; i++) *--top = NULL;
        coroutine_sp = top;
        enter();
        return;
    }
#ifndef NAMELESS
    getcontext(&coroutine_context);
    coroutine_context.uc_stack.ss_sp = stack;
    coroutine_context.uc_stack.ss_size = stack_bytes;
    coroutine_context.uc_link = NULL;
    makecontext(&coroutine_context, body, 0);
    if (by_setjmp) { if (!_setjmp(main_jump)) setcontext(&coroutine_context); }
    else swapcontext(&main_context, &coroutine_context);
#endif
}
static void other(const char *line) {
    if (!strcmp(line, "suspend\n")) { start(0); say("suspended"); }
    else if (!strcmp(line, "through\n")) { start(1); printf("%d\n", result); fflush(stdout); }
    else if (!strcmp(line, "inside\n")) { start(2); printf("%d\n", result); fflush(stdout); }
    else if (!strcmp(line, "resume\n")) { enter(); printf("%d\n", result); fflush(stdout); }
    else say("?");
}
int main(int argc, char **argv) {
    static char *around[8];
    if (argc < 3) return 2;
    setvbuf(stdin, NULL, _IONBF, 0);
    by_assembly = !strcmp(argv[1], "assembly");
#ifndef NAMELESS
    by_setjmp = !strcmp(argv[1], "setjmp");
#endif
    if (!strcmp(argv[2], "heap")) {
        // Not by mmap, whatever its size.
        for (int i = 0; i < 4; i++) around[i] = malloc(60000);
        stack = sbrk(stack_bytes);
        for (int i = 4; i < 8; i++) around[i] = malloc(60000);
        if (!around[7]) return 3;
    } else if (!strcmp(argv[2], "mmap")) {
        stack = mmap(NULL, stack_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    } else {
        stack = static_stack;
    }
    serve(other);
    return 0;
}
