"""The scripted server, as users' tests have it."""

from __future__ import annotations

import threading

import pytest

from sdgrpc.client import Client, InvalidRequestError
from sdgrpc.testing import draw_script, hang_script, invalid_script, scripted_server


def test_a_call_that_ends_was_not_cancelled() -> None:
    """Neither one that was drawn nor one that failed counts as one whose caller went away."""
    with scripted_server(draw_script()) as server, Client(server.target) as client:
        client.generate("a red star").images()
        assert [request.prompt for request in server.requests] == ["a red star"]
        assert not server.cancelled.is_set()
    with scripted_server(invalid_script()) as server, Client(server.target) as client:
        with pytest.raises(InvalidRequestError, match="2 fields are wrong"):
            client.generate("a red star").images()
        assert not server.cancelled.is_set()


def test_a_caller_that_goes_away_is_seen() -> None:
    """`cancelled` is set, so that a test can wait for it."""
    started = threading.Event()
    with scripted_server(hang_script(started)) as server, Client(server.target) as client:
        job = client.generate("a red star")
        assert started.wait(30)
        job.cancel()
        assert server.cancelled.wait(30)
