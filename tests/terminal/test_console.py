"""The consoles."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.table import Table

from sdgrpc.terminal import console as module
from sdgrpc.terminal.console import console, progress_console, shows_pictures


def test_piped_tables_are_whole(capsys: pytest.CaptureFixture[str]) -> None:
    """A row is a line, however long, and square brackets are text."""
    table = Table("a", "b", box=None)
    table.add_row("[bold]x[/bold]", "y" * 9000)
    console().print(table)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[1].split() == ["[bold]x[/bold]", "y" * 9000]


def test_progress_is_no_result(capsys: pytest.CaptureFixture[str]) -> None:
    """It is on standard error."""
    progress_console().print("half way [there]")
    assert capsys.readouterr() == ("", "half way [there]\n")


def test_pictures_need_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal with colours shows pictures; NO_COLOR, a dumb terminal and a pipe do not."""

    def terminal(**options: object) -> Console:
        return Console(file=io.StringIO(), force_terminal=True, legacy_windows=False, **options)

    assert shows_pictures(terminal(color_system="truecolor"))
    assert not shows_pictures(terminal(color_system=None))
    assert not shows_pictures(Console(file=io.StringIO()))
    monkeypatch.setenv("NO_COLOR", "1")
    assert not shows_pictures(terminal(color_system="truecolor"))
    assert module.UNBROKEN > 100_000
