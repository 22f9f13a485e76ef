// The parent of every test that patches a real process. They run one at a time: they measure, and they stop processes.

import Glibc
import Testing

@Suite(.serialized, .enabled(if: getuid() == 0, "patching another process needs root")) struct SystemTests {}
