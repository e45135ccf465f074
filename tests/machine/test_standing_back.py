"""Threads that leave the processor to others."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable

import pytest

from sdgrpc.machine.standing_back import BEHIND_STEPS, stand_back
from sdgrpc.machine.workers import Workers

linux = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere priorities are not a thread's")


def nice() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


def in_thread(*work: Callable[[], object]) -> list[object]:
    """What each returned, in a thread of its own."""
    found: list[object] = []
    thread = threading.Thread(target=lambda: found.extend(one() for one in work))
    thread.start()
    thread.join()
    return found


@linux
def test_a_thread_alone_stands_back() -> None:
    """From where the process is, which may be nice itself; twice is twice, but for the kernel's last."""
    usual = nice()
    many = in_thread(nice, stand_back, nice, stand_back, nice, lambda: stand_back(100), nice)
    assert [one for one in many if one is not None] == [
        usual,
        min(19, usual + BEHIND_STEPS),
        min(19, usual + 2 * BEHIND_STEPS),
        19,
    ]
    assert nice() == usual


@linux
def test_workers_stand_back_where_they_are_told_to() -> None:
    """Those of steps do not."""
    found: list[int] = []
    for behind in (0, BEHIND_STEPS):
        Workers(2, behind=behind).share(lambda _: found.append(nice() - usual), range(3))
    assert found == [0] * 3 + [BEHIND_STEPS] * 3


usual = nice() if sys.platform == "linux" else 0


def test_elsewhere_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a system that would change the whole process."""
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(os, "setpriority", None)
    stand_back()
