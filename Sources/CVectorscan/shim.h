/* The door to Vectorscan, the multi-pattern matcher, version 5.4 or newer; and to the C library's search for one literal. */
#ifndef FOTHER_CVECTORSCAN_H
#define FOTHER_CVECTORSCAN_H

#include <string.h>

#include <hs/hs.h>

/* Glibc's module hides memmem, which is not in any standard. */
void *memmem(const void *haystack, size_t haystack_length, const void *needle, size_t needle_length);

static inline const void *cvectorscan_find(const void *bytes, size_t count, const void *literal, size_t literal_count) {
  return memmem(bytes, count, literal, literal_count);
}

#endif
