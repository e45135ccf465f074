"""`serve --web`, refused before anything is loaded; and `make play` as a newcomer runs it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.support.certificates import authority, signed

ROOT = Path(__file__).parents[3]


def test_refused_addresses(run) -> None:
    """One that other machines reach, one that is none, and one that is taken."""
    assert "is not of this machine alone" in " ".join(_refused(run, "serve", "--web", "localhost.example:0"))
    assert "'8080' is not HOST:PORT" in " ".join(_refused(run, "serve", "--web", "8080"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert f"cannot listen on {address}" in " ".join(_refused(run, "serve", "--web", address))


def test_a_server_with_tls(run, tmp_path: Path) -> None:
    """Its page is `sdgrpc web`'s, which can be told whom to trust."""
    authority(tmp_path)
    signed(tmp_path, "server")
    files = ("--tls-certificate", tmp_path / "server.pem", "--tls-key", tmp_path / "server.key")
    said = " ".join(_refused(run, "serve", "--listen", "127.0.0.1:0", "--web", "127.0.0.1:0", *files))
    assert "run `sdgrpc web` beside it, with --tls-ca" in said


@pytest.mark.parametrize("command", [("serve", "--web", "127.0.0.1:0"), ("web", "--listen", "127.0.0.1:0")])
def test_without_the_extra(run, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]) -> None:
    """What is missing is named, with what to install."""
    for name in [one for one in sys.modules if one.startswith("sdgrpc.web")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.setitem(sys.modules, "gradio", None)
    said = " ".join(_refused(run, *command))
    assert 'needs the web extra: pip install "sdgrpc[web]"' in said


def test_make_play(tmp_path: Path) -> None:
    """It prints where to draw, the page is there with its LoRA files, and Ctrl-C ends it."""
    if shutil.which("make") is None:
        pytest.skip("needs make")
    (tmp_path / "sdgrpc").write_text(f'#!/bin/sh\nexec {sys.executable} -m sdgrpc "$@"\n')
    (tmp_path / "sdgrpc").chmod(0o755)
    command = ["make", "-o", "setup", "play", f"BIN={tmp_path}", "PAGE=127.0.0.1:0"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SDGRPC_")}
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True
    ) as process:
        try:
            assert process.stdout
            line = next(line for line in process.stdout if line.startswith("draw on "))
            address = line.split()[-1]
            assert "sdgrpc" in httpx.get(address).text
            names = [one["id"] for one in httpx.get(f"{address}/v1/models").json()["data"]]
            assert {"embedded", "embedded:postcard"} <= set(names)
        finally:
            os.killpg(process.pid, signal.SIGINT)
        assert process.wait(60) in (0, 130, 2, -signal.SIGINT)


def _refused(run, *arguments) -> list[str]:
    result = run(*arguments)
    assert result.exit_code == 1
    return result.stderr.split()
