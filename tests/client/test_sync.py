"""The client for ordinary code: cancelling, deadlines, readiness."""

from __future__ import annotations

import json
import subprocess
import sys
import threading

import pytest

from sdgrpc import client as api
from sdgrpc.client import Client
from sdgrpc.testing.server import (
    hang_script,
    scripted_server,
)


def test_cancel_reaches_the_server() -> None:
    """Cancelling from another thread ends the iteration with an error and the server's call."""
    started = threading.Event()
    with scripted_server(hang_script(started)) as server, Client(server.target) as client:
        job = client.generate("a star")
        canceller = threading.Thread(target=lambda: (started.wait(), job.cancel()))
        canceller.start()
        with pytest.raises(api.JobCancelledError):
            job.result()
        canceller.join()
        assert server.cancelled.wait(timeout=10)


def test_leaving_the_block_cancels() -> None:
    """A job used as a context manager does not outlive its block."""
    with scripted_server(hang_script(threading.Event())) as server, Client(server.target) as client:
        with client.generate("a star") as job:
            assert isinstance(next(iter(job)), api.Accepted)
        assert server.cancelled.wait(timeout=10)


def test_timeout_is_the_deadline() -> None:
    """A call ends when its timeout has passed."""
    with scripted_server(hang_script(threading.Event())) as server, Client(server.target) as client:
        with pytest.raises(api.DeadlineExceededError):
            client.generate("a star", timeout=0.2).result()
        assert server.cancelled.wait(timeout=10)


def test_waits_for_the_health_service(server) -> None:
    """Waiting ends when the health service says that the server serves, not before."""
    server.serve(False)
    with Client(server.target) as client:
        with pytest.raises(api.UnavailableError, match=r"not ready within 0\.2 s"):
            client.wait_until_ready(timeout=0.2)
        timer = threading.Timer(0.1, server.serve)
        timer.start()
        client.wait_until_ready(timeout=10)
        timer.join()


def test_waits_for_a_server_that_is_not_there_yet() -> None:
    """A port where nobody listens yet is waited for, and the wait ends."""
    with (
        Client("127.0.0.1:1") as client,
        pytest.raises(api.UnavailableError, match=r"127\.0\.0\.1:1 was not"),
    ):
        client.wait_until_ready(timeout=0.2)


def test_import_is_light() -> None:
    """Importing the client loads neither torch nor numpy nor any server library."""
    code = "import json, sys, sdgrpc.client; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    heavy = {"torch", "numpy", "diffusers", "transformers", "pydantic_settings", "PIL"}
    assert not heavy & set(json.loads(done.stdout))
