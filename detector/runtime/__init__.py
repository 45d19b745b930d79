"""The machine: processes, number formats, memory, clocks, signals."""
