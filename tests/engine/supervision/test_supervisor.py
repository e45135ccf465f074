"""What ends an engine, and what only ends a job."""

from __future__ import annotations

import logging
import threading

import pytest
import torch

from sdgrpc.engine.supervision.call_times import CallShape
from sdgrpc.engine.supervision.supervisor import Supervisor
from sdgrpc.errors import EngineFailed, ModelError, OutOfMemory

SHAPE = CallShape("predict", "m", (2, 8, 8))
ILLEGAL = "CUDA error: an illegal memory access was encountered"


def raising(error: BaseException):
    def work() -> None:
        raise error

    return work


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.CRITICAL]


@pytest.mark.parametrize(
    "error",
    [
        SystemExit(),
        KeyboardInterrupt(),
        GeneratorExit(),
        RuntimeError(ILLEGAL),
        torch.AcceleratorError(ILLEGAL),
    ],
)
def test_what_ends_the_engine(error: BaseException, caplog) -> None:
    """Listeners hear of it once, whoever caused it gets EngineFailed, one line has every thread's stack."""
    supervisor, told = Supervisor(), []
    supervisor.on_failure(lambda: told.append("first"))
    for _ in range(2):
        with pytest.raises(EngineFailed):
            supervisor.run(SHAPE, raising(error))
    supervisor.on_failure(lambda: told.append("late"))
    assert told == ["first", "late"]
    with pytest.raises(EngineFailed) as failure:
        supervisor.check()
    assert (failure.value.code, failure.value.reason) == ("UNAVAILABLE", "ENGINE_FAILED")
    (line,) = lines(caplog)
    assert "MainThread" in line
    assert "test_what_ends_the_engine" in line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ValueError("a prompt"), ValueError),
        (ModelError("not finite"), ModelError),
        (MemoryError(), OutOfMemory),
        (torch.OutOfMemoryError("CUDA out of memory"), OutOfMemory),
        (RuntimeError("CUDA error: invalid argument"), RuntimeError),
    ],
)
def test_what_ends_only_a_job(error: Exception, kind: type[Exception]) -> None:
    """Other errors stay what they are; those of memory become ours."""
    supervisor = Supervisor()
    with pytest.raises(kind):
        supervisor.run(SHAPE, raising(error))
    assert not supervisor.failed
    assert supervisor.run(SHAPE, lambda: "on it goes") == "on it goes"


def test_a_thread_that_ends_by_an_error_ends_the_engine(caplog) -> None:
    """Whatever the error; its text, which may quote a request, is not logged."""
    supervisor = Supervisor()
    thread = supervisor.thread("sdgrpc-test", raising(KeyError("a secret prompt")))
    thread.start()
    thread.join(10)
    assert supervisor.failed
    (line,) = lines(caplog)
    assert "sdgrpc-test" in line
    assert "KeyError" in line
    assert "secret" not in line


def test_a_thread_that_ends_by_itself_is_no_fault() -> None:
    """As at the end of an engine."""
    supervisor = Supervisor()
    thread = supervisor.thread("sdgrpc-test", lambda: None)
    thread.start()
    assert supervisor.join([thread])


def test_a_call_that_does_not_return_ends_the_engine(caplog) -> None:
    """The thread that hangs is named; nobody waits for it any more."""
    supervisor, failed, release = Supervisor(hang_timeout=0.1), threading.Event(), threading.Event()
    supervisor.on_failure(failed.set)
    supervisor.start()
    hanging = supervisor.thread("sdgrpc-hangs", lambda: supervisor.run(SHAPE, release.wait))
    hanging.start()
    assert failed.wait(30)
    assert not supervisor.join([hanging])
    release.set()
    hanging.join(30)
    for thread in threading.enumerate():
        if thread.name == "sdgrpc-watch":  # it logs after it has told everybody
            thread.join(30)
    assert any("predict has not returned" in line and "sdgrpc-hangs" in line for line in lines(caplog))


def test_a_watch_of_no_time_watches_nothing() -> None:
    """`hang_timeout` 0: the operator waits for ever."""
    before = threading.active_count()
    Supervisor(hang_timeout=0).start()
    assert threading.active_count() == before


def test_a_listener_that_fails_keeps_nobody_from_hearing() -> None:
    """The others are told all the same."""
    supervisor, told = Supervisor(), []
    supervisor.on_failure(raising(ValueError("deaf")))
    supervisor.on_failure(lambda: told.append(1))
    supervisor.fail("for a test")
    assert told == [1]
