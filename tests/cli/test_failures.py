"""How commands end when something goes wrong."""

from __future__ import annotations

import threading

import pytest
import typer

from sdgrpc.cli.failures import CANCELLED, failures_as_lines


def interrupted_in_a_lock() -> None:
    """What Ctrl-C does between a condition's release of its lock and its wait."""
    lock = threading.Lock()
    with lock:
        lock.release()
        raise KeyboardInterrupt


@pytest.mark.parametrize("place", ["anywhere", "in a lock"])
def test_ctrl_c(place: str, capsys) -> None:
    """Ctrl-C is one line and status 130, also where a lock makes another error of it."""
    with pytest.raises(typer.Exit) as ended, failures_as_lines():
        if place == "in a lock":
            interrupted_in_a_lock()
        raise KeyboardInterrupt
    assert ended.value.exit_code == CANCELLED
    assert capsys.readouterr().err == "cancelled\n"


def test_the_lock_does_make_another_error_of_it() -> None:
    """The test above is about a RuntimeError indeed."""
    with pytest.raises(RuntimeError, match="release unlocked lock"):
        interrupted_in_a_lock()


def test_a_fault_of_ours_stays_one() -> None:
    """A RuntimeError that no Ctrl-C is behind keeps its traceback."""
    with pytest.raises(RuntimeError, match="ours"), failures_as_lines():
        raise RuntimeError("ours")
