"""`sdgrpc health`."""

from __future__ import annotations

import socket


def test_a_ready_server(run, server) -> None:
    """A server that serves is status 0 and one word."""
    server.serve()
    result = run("health", "--server", server.target, "--wait", "60")
    assert (result.exit_code, result.stdout) == (0, "serving\n")


def test_a_server_that_loads(run, server) -> None:
    """A server that is not ready yet is status 1 and says so."""
    server.serve(False)
    result = run("health", "--server", server.target, "--wait", "0.2")
    assert result.exit_code == 1
    assert "not ready within 0.2 s" in result.stderr


def test_nobody_there(run) -> None:
    """No server is status 1 and a line that says where it was looked for."""
    with socket.socket() as taken:  # bound but not listening: nobody answers, and nobody else can begin to
        taken.bind(("127.0.0.1", 0))
        result = run("health", "--server", f"127.0.0.1:{taken.getsockname()[1]}", "--wait", "0.2")
    assert result.exit_code == 1
    assert "no server answers at 127.0.0.1:" in result.stderr
