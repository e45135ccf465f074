"""The console that tables and lines are printed on."""

from __future__ import annotations

from rich.console import Console

MIB = 1 << 20


UNBROKEN = 4096  # columns


def console() -> Console:
    """Return a console that breaks no lines where no terminal has a width."""
    found = Console()
    return found if found.is_terminal else Console(width=UNBROKEN)
