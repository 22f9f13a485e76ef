// Room LivePatchApplier: see docs/ARCHITECTURE.md.
