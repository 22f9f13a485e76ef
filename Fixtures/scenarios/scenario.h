// What a scenario's program does: answers "ask" with one line, and does "enter" and "leave" as the scenario means them.
#ifndef SCENARIO_H
#define SCENARIO_H
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#define kept __attribute__((noipa))

static void serve(const char *(*answer)(void), void (*enter)(void), void (*leave)(void)) {
    char line[64];
    puts("ready");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        if (!strcmp(line, "ask\n")) puts(answer());
        else if (!strcmp(line, "enter\n")) { enter(); puts("entered"); }
        else if (!strcmp(line, "leave\n")) { leave(); puts("left"); }
        fflush(stdout);
    }
    exit(0);
}
// A thread that calls `body` once and stays in it until told.
static int scenario_pipe[2];
static volatile int scenario_inside;
static pthread_t scenario_thread;
static inline int scenario_wait(void) {
    char byte;
    scenario_inside = 1;
    return (int)read(scenario_pipe[0], &byte, 1);
}
static inline void scenario_enter(void *(*body)(void *)) {
    if (pipe(scenario_pipe) || pthread_create(&scenario_thread, NULL, body, NULL)) exit(2);
    while (!scenario_inside) usleep(100);
    usleep(1000);
}
static inline void scenario_leave(void) {
    if (write(scenario_pipe[1], "x", 1) != 1) exit(3);
    pthread_join(scenario_thread, NULL);
}
#endif
