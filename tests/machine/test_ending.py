"""The end of the process, which here only says that it would be."""

from __future__ import annotations

import logging
import queue
import subprocess
import sys
import threading

import pytest

from sdgrpc.machine.ending import STUCK, ProcessEnd


@pytest.fixture
def ended() -> queue.Queue[int]:
    return queue.Queue()


def test_the_earliest_order_counts(ended, caplog) -> None:
    """A second signal does not wait for what the first one allowed; the log says why, with stacks."""
    end = ProcessEnd(ended.put)
    end.by(600, STUCK, "since threads outlasted the time for draining")
    end.by(0.01, 0, "as a second signal asked for")
    end.by(300, 3)
    assert ended.get(timeout=30) == 0
    lines = [record.getMessage() for record in caplog.records if record.levelno == logging.CRITICAL]
    (line,) = [line for line in lines if line.startswith("ending now, as a second signal asked for")]
    assert "MainThread" in line


def test_an_order_without_a_reason_is_silent(ended, caplog) -> None:
    """Whoever gave it has said enough."""
    ProcessEnd(ended.put).by(0, STUCK)
    assert ended.get(timeout=30) == STUCK
    assert not [record for record in caplog.records if "ending now, ;" in record.getMessage()]


def test_a_log_that_nobody_reads_does_not_hold_it_up(ended, monkeypatch) -> None:
    """A full pipe blocks for good."""
    release = threading.Event()
    monkeypatch.setattr("sdgrpc.machine.ending.every_stack", lambda: release.wait(30))
    ProcessEnd(ended.put).by(0, 5, "for a test")
    assert ended.get(timeout=20) == 5
    release.set()


def test_a_process_with_a_thread_that_hangs_ends() -> None:
    """Python itself would wait for it."""
    code = (
        "import threading; from sdgrpc.machine.ending import ProcessEnd\n"
        "threading.Thread(target=threading.Event().wait).start()\n"
        "ProcessEnd().by(0.1, 70)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 70
