"""What ends a job goes before the next step."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from sdgrpc.engine.queueing import decodes_first
from sdgrpc.engine.queueing.decodes_first import DecodesFirst

PATIENCE = 30.0
"""Far more than anything here takes; nothing waits for so long where it works."""


class Decoding:
    """One that goes on until it is told to end."""

    def __init__(self, turns: DecodesFirst, pool: ThreadPoolExecutor) -> None:
        self.begun, self.end = threading.Event(), threading.Event()
        self.done: Future[None] = pool.submit(self._decode, turns)

    def _decode(self, turns: DecodesFirst) -> None:
        with turns.decoding():
            self.begun.set()
            assert self.end.wait(PATIENCE)

    def finish(self) -> None:
        self.end.set()
        self.done.result(PATIENCE)


@pytest.fixture
def pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(4)


def test_a_step_waits_for_what_was_asked_for(pool: ThreadPoolExecutor) -> None:
    """Going on or waiting, and for nothing that is asked for later."""
    turns = DecodesFirst()
    turns.wait()  # nobody decodes
    first = Decoding(turns, pool)
    assert first.begun.wait(PATIENCE)
    step = pool.submit(turns.wait)
    with pytest.raises(TimeoutError):
        step.result(0.1)
    later = Decoding(turns, pool)
    assert not later.begun.wait(0.1)  # one after the other
    first.finish()
    step.result(PATIENCE)
    assert later.begun.wait(PATIENCE)
    later.finish()
    turns.wait()


def test_a_step_waits_for_one_that_is_expected(
    pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its thread may need a moment to begin."""
    monkeypatch.setattr(decodes_first, "SOON", PATIENCE)
    turns = DecodesFirst()
    turns.expect()
    step = pool.submit(turns.wait)
    with pytest.raises(TimeoutError):
        step.result(0.1)
    one = Decoding(turns, pool)
    assert one.begun.wait(PATIENCE)
    assert not step.done()
    one.finish()
    step.result(PATIENCE)
    turns.wait()  # what was expected has come


def test_a_cancelled_job_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its decoding was expected and never comes; nor does one that goes on for very long."""
    monkeypatch.setattr(decodes_first, "LONGEST", 0.01)
    turns = DecodesFirst()
    turns.expect()
    began = time.monotonic()
    turns.wait()
    with turns.decoding():
        turns.wait()
    assert time.monotonic() - began < PATIENCE


def test_one_that_fails_has_ended() -> None:
    """Steps go on, and the next is decoded."""
    turns = DecodesFirst()
    with pytest.raises(ZeroDivisionError), turns.decoding():
        raise ZeroDivisionError
    turns.wait()
    with turns.decoding():
        assert turns._one.locked()
    turns.wait()


def test_one_that_hangs_costs_no_other_its_picture(
    pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others are decoded beside it, each for itself, and steps go on."""
    monkeypatch.setattr(decodes_first, "LONGEST", 0.01)
    turns = DecodesFirst()
    hangs = Decoding(turns, pool)
    assert hangs.begun.wait(PATIENCE)
    for _ in range(2):
        other = Decoding(turns, pool)
        assert other.begun.wait(PATIENCE)
        other.finish()
    turns.wait()
    assert not hangs.done.done()
    hangs.finish()
    assert not turns._one.locked()
