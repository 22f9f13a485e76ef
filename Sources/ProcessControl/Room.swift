// Room ProcessControl: see docs/ARCHITECTURE.md.
