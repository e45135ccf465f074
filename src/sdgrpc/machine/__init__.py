"""The machine below: memory, processor, threads."""
