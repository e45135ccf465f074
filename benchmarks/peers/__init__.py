"""Our server beside other ways to draw with LoRA files: `python -m benchmarks.peers --help`."""
