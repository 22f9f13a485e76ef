// Room Advisories: see docs/ARCHITECTURE.md.
