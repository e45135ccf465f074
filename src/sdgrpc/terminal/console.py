"""The consoles: results on standard output, progress on standard error."""

from __future__ import annotations

from rich.console import Console

MIB = 1 << 20


UNBROKEN = 1_000_000  # columns


def console() -> Console:
    """Return the console of results, which breaks no lines where no terminal has a width.

    Text is shown as it is: square brackets in descriptions are no markup.
    """
    found = Console(markup=False, highlight=False)
    if found.is_terminal:
        return found
    return Console(markup=False, highlight=False, width=UNBROKEN, no_color=True)


def progress_console() -> Console:
    """Return the console of what happens meanwhile."""
    return Console(stderr=True, markup=False, highlight=False)


def shows_pictures(console: Console) -> bool:
    """Whether pictures of coloured blocks can be shown: in a terminal with colours that may be used."""
    return console.is_terminal and console.color_system is not None and not console.no_color
