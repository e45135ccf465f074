"""Mirrors `src/sdgrpc/cli/doors`."""
