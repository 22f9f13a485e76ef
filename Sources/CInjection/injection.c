/* Finds libinjection inside libmodsecurity at run time, so that Fother does without where it is not installed. */
#include "cinjection.h"

#include <dlfcn.h>
#include <pthread.h>

typedef int (*sqli_function)(const char *text, size_t length, char fingerprint[]);
typedef int (*xss_function)(const char *text, size_t length);

static pthread_once_t once = PTHREAD_ONCE_INIT;
static sqli_function sqli;
static xss_function xss;

static void look(void) {
  void *library = dlopen("libmodsecurity.so.3", RTLD_NOW | RTLD_LOCAL);
  if (!library) return;
  sqli = (sqli_function)dlsym(library, "libinjection_sqli");
  xss = (xss_function)dlsym(library, "libinjection_xss");
}

int cinjection_available(void) {
  pthread_once(&once, look);
  return sqli != NULL && xss != NULL;
}

int cinjection_sql(const void *text, size_t length) {
  char fingerprint[16] = {0};
  if (!cinjection_available()) return -1;
  return sqli(text, length, fingerprint) != 0;
}

int cinjection_xss(const void *text, size_t length) {
  if (!cinjection_available()) return -1;
  return xss(text, length) != 0;
}
