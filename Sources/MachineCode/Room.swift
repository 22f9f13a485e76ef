// Room MachineCode: see docs/ARCHITECTURE.md.
