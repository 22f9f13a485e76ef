// C shim over Linux interfaces that Swift cannot import: variadic system calls and function-like macros.
// Every function returns >= 0, or -errno. No policy here.
#ifndef FOTHER_CLINUX_H
#define FOTHER_CLINUX_H
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <sys/ptrace.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>
#endif
