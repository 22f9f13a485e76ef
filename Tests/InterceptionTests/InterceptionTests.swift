// The parent of every test with a network of its own. They run one at a time: two processors carry attacker, filter and server.

import Glibc
import Testing

@Suite(.serialized, .enabled(if: getuid() == 0, "a network namespace needs root")) struct InterceptionTests {}
