"""Where every thread is."""

from __future__ import annotations

import threading

import pytest

from sdgrpc.machine.stacks import every_stack, origin


def waits_in_here(ready: threading.Event, release: threading.Event) -> None:
    ready.set()
    release.wait(30)


def test_every_thread_is_told_in_one_line() -> None:
    """By its name, with file, line and function, the innermost first."""
    ready, release = threading.Event(), threading.Event()
    thread = threading.Thread(target=waits_in_here, args=(ready, release), name="sdgrpc-waits")
    thread.start()
    ready.wait(30)
    line = every_stack()
    release.set()
    thread.join()
    assert "\n" not in line
    stacks = dict(stack.split(": ", 1) for stack in line.split("; "))
    calls = stacks["sdgrpc-waits"].split(" < ")
    (mine,) = [place for place, call in enumerate(calls) if call.endswith("waits_in_here")]
    assert "machine/test_stacks.py:" in calls[mine]
    assert mine > 0, "what it waits in comes before it"
    assert "every_stack" in stacks["MainThread"]


def test_an_error_is_named_without_its_text() -> None:
    """The text may quote a request."""
    with pytest.raises(KeyError) as raised:
        {}["a secret prompt"]
    assert origin(raised.value).startswith("KeyError at machine/test_stacks.py:")
    assert "secret" not in origin(raised.value)
    assert origin(SystemExit()) == "SystemExit"
