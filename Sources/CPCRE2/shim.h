/* The door to PCRE2, regular expressions over bytes. Version 10.30 or newer. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
