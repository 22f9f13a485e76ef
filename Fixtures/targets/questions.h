// What every program of this folder answers about the library that is patched in it, line by line:
//   verdict N, greet, calls
#ifndef QUESTIONS_H
#define QUESTIONS_H
#include "target.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/// 1 if the line was one of those above and has been answered.
static int answered(const char *line) {
    if (!strncmp(line, "verdict ", 8)) printf("%d\n", target_verdict(atoi(line + 8)));
    else if (!strcmp(line, "greet\n")) puts(target_greeting());
    else if (!strcmp(line, "calls\n")) printf("%d\n", target_count());
    else return 0;
    fflush(stdout);
    return 1;
}
static void say(const char *text) {
    puts(text);
    fflush(stdout);
}
/// Reads lines until the input ends; `other` answers what is not about the library.
static void serve(void (*other)(const char *line)) {
    static char line[4096];
    target_count_from(1000);
    target_greeting(); // binds the import
    say("ready");
    while (fgets(line, sizeof line, stdin))
        if (!answered(line)) other(line);
    exit(0);
}
#endif
