// Room LivePatchBuilder: see docs/ARCHITECTURE.md.
