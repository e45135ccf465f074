"""`sdgrpc health`."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

from sdgrpc.testing.server import draw_script, scripted_server
from tests.support.certificates import authority, signed


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


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Set a server's settings in the environment."""

    def put(**values: object) -> None:
        for name, value in values.items():
            monkeypatch.setenv(f"SDGRPC_{name.upper()}", str(value))

    return put


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])  # noqa: S104 - what a container listens on
def test_the_environment_s_server(run, server, environment, host: str) -> None:
    """Health asks the server that `serve` would start with this environment, on whatever port."""
    server.serve()
    environment(listen=f"{host}:{server.port}", insecure="true")
    assert run("health").stdout == "serving\n"


def test_the_file_s_server(run, server, environment, tmp_path: Path) -> None:
    """And the one that the file of settings describes."""
    server.serve()
    (tmp_path / "server.toml").write_text(f'listen = "0.0.0.0:{server.port}"\ninsecure = true\n')
    environment(config=tmp_path / "server.toml")
    assert run("health").stdout == "serving\n"


@pytest.mark.parametrize("mutual", [False, True])
def test_the_environment_s_tls(run, environment, tmp_path: Path, mutual: bool) -> None:
    """Its own certificate is trusted, by the name in it, and shown where the server asks for one."""
    authority(tmp_path)
    signed(tmp_path, "server")
    pair = ((tmp_path / "server.key").read_bytes(), (tmp_path / "server.pem").read_bytes())
    known = (tmp_path / "ca.pem").read_bytes() if mutual else None
    environment(tls_certificate=tmp_path / "server.pem", tls_key=tmp_path / "server.key")
    if mutual:
        environment(tls_client_ca=tmp_path / "ca.pem")
    with scripted_server(
        draw_script(), grpc.ssl_server_credentials([pair], known, require_client_auth=mutual)
    ) as server:
        server.serve()
        environment(listen=f"0.0.0.0:{server.port}")
        result = run("health")
        assert (result.exit_code, result.stdout) == (0, "serving\n"), result.stderr
        server.serve(False)
        assert "loading" in run("health", "--wait", "0.3").stderr


def test_settings_that_no_server_starts_with(run, environment) -> None:
    """They are named: the server would have said the same."""
    environment(listen="nowhere")
    result = run("health")
    assert (result.exit_code, "listen (SDGRPC_LISTEN)" in result.stderr) == (1, True)


def test_as_json(run, server) -> None:
    """One word for the state, by which programs tell a server that loads from none."""
    server.serve()
    assert json.loads(run("health", "--server", server.target, "--json").stdout) == {"state": "serving"}
    server.serve(False)
    loading = run("health", "--server", server.target, "--wait", "0.2", "--json")
    assert (loading.exit_code, json.loads(loading.stdout)) == (1, {"state": "loading"})
    nobody = run("health", "--server", "127.0.0.1:1", "--wait", "0.2", "--json")
    assert (nobody.exit_code, json.loads(nobody.stdout)) == (1, {"state": "unreachable"})
