// Room LivePatch: see docs/ARCHITECTURE.md.
