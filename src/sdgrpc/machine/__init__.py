"""The machine below: memory, processor, threads, signals, the end of the process."""
