"""The command line. Commands import what is heavy when they run, so that `--help` answers at once."""

from sdgrpc.cli.app import build_app, main

__all__ = ["build_app", "main"]
