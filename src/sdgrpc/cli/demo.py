"""`demo`: the whole service at work, in a minute."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Annotated

import typer

from sdgrpc.cli.failures import failures_as_lines
from sdgrpc.terminal.console import console, progress_console


def demo(
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="Where to write.")] = Path(
        "demo"
    ),
) -> None:
    """Start a server with the embedded model, draw on it over gRPC, and write a contact sheet."""
    from sdgrpc.demo.run import run_demo

    with failures_as_lines():
        # A closed terminal and a polite kill must stop the server too, as Ctrl-C does.
        for name in ("SIGTERM", "SIGHUP"):
            if hasattr(signal, name):  # Windows knows no SIGHUP
                signal.signal(getattr(signal, name), signal.default_int_handler)
        run_demo(output, progress_console(), console())
