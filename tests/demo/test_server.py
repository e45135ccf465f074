"""The demonstration's server process, when it cannot start; tests/e2e runs it whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from sdgrpc.demo.server import ServerDied, running_server


def test_a_server_that_dies_is_explained(tmp_path: Path) -> None:
    """The error holds the end of the server's log, which says why."""
    with (
        pytest.raises(ServerDied, match=r"max_steps: input should be greater than or equal to 1"),
        running_server(tmp_path / "server.log", ["--max-steps", "0"]),
    ):
        pytest.fail("a server with a wrong flag is not ready")


def test_settings_of_the_environment_are_not_taken(tmp_path: Path, monkeypatch) -> None:
    """The demonstration shows the defaults: the log names our flag, not the variable."""
    monkeypatch.setenv("SDGRPC_QUEUE_SIZE", "0")
    with (
        pytest.raises(ServerDied) as caught,
        running_server(tmp_path / "server.log", ["--max-steps", "0"]),
    ):
        pytest.fail("a server with a wrong flag is not ready")
    assert "queue_size" not in caught.value.message
