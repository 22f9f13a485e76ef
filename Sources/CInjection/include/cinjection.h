/* libinjection as Debian's libmodsecurity3 exports it, looked up when it is asked for. glibc 2.34 or newer. */
#ifndef FOTHER_CINJECTION_H
#define FOTHER_CINJECTION_H

#include <stddef.h>

/* 1 when the functions are there, 0 when not. Safe to call from any thread. */
int cinjection_available(void);
/* 1: looks like an injection, 0: does not, -1: the functions are not there. */
int cinjection_sql(const void *text, size_t length);
int cinjection_xss(const void *text, size_t length);

#endif
