/* Repeats a probe in children of one process, so that whatever it breaks stays theirs: argv[1] times, 0.2 s apart. */
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static int once(void); /* 0 fixed, 1 vulnerable, 2 cannot tell */

int main(int count, char **words) {
  int n = count > 1 ? atoi(words[1]) : 1, r = 2;
  struct rlimit none = {0, 0};
  setrlimit(RLIMIT_CORE, &none);
  for (int i = 0; i < n; i++) {
    int status;
    pid_t child = fork();
    if (child == 0) {
      freopen("/dev/null", "w", stderr);
      alarm(10);
      _exit(once());
    }
    waitpid(child, &status, 0);
    /* A child that died did what the fix keeps from happening. */
    r = WIFEXITED(status) ? WEXITSTATUS(status) : 1;
    printf("%s\n", r == 0 ? "FIXED" : r == 1 ? "VULNERABLE" : "ERROR");
    fflush(stdout);
    if (i + 1 < n) usleep(200000);
  }
  return r;
}
