"""Signals to a real server, healthy and hanging."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.faults.conftest import faulty_server
from tests.support.api import generate
from tests.support.server import ServerProcess, running_server


def logged(server: ServerProcess, text: str) -> bool:
    return text in server.log_text()


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_sigusr2_changes_the_level_and_back(tmp_path: Path) -> None:
    """And the log is JSON to the last line."""
    with running_server(tmp_path / "log", "--log-format", "json", "--log-level", "warning") as server:
        assert server.log_text() == ""
        for level in ("debug", "warning"):
            server.signal(signal.SIGUSR2)
            until(partial(logged, server, f"log level is now {level}"))
    lines = [json.loads(line) for line in server.log_text().splitlines()]
    assert [line["event"] for line in lines] == ["log level is now debug", "log level is now warning"]


def test_sigusr1_writes_the_stacks_of_a_server_that_hangs(tmp_path: Path) -> None:
    """Where its threads are, that which hangs included; it goes on afterwards."""
    with faulty_server(tmp_path) as server:
        server.order("predict", "hang")
        call = server.stub.Generate(generate())
        server.until_hanging()
        server.signal(signal.SIGUSR1)
        until(lambda: "_step_jobs" in server.log_text() and "Current thread" in server.log_text())
        assert "in _hang" in server.log_text()
        server.heal()
        assert list(call)[-1].HasField("finished")
