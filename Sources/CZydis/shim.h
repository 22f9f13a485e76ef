// Zydis 4 (Debian: libzydis-dev), the x86 instruction decoder. No policy here.
#include <Zydis/Zydis.h>
