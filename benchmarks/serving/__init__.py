"""Our service beside diffusers' pipelines: `python -m benchmarks.serving --help`."""
