// C shim over Linux interfaces that Swift cannot import: variadic system calls and function-like macros.
// Every function returns >= 0, or -errno. No policy here. Minimum kernel 4.3 unless a function says otherwise.
//
// The headers name no system header that _GNU_SOURCE changes: the Glibc module is built without it, and two
// definitions of one type in a program are an error.
#ifndef FOTHER_CLINUX_H
#define FOTHER_CLINUX_H
#include "clinux_code.h"
#include "clinux_files.h"
#include "clinux_spawn.h"
#include "clinux_trace.h"
#endif
