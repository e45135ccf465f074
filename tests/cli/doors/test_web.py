"""`sdgrpc web`, as the command and as a process of its own."""

from __future__ import annotations

import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.support.certificates import authority, signed

ASK = {"prompt": "a star"}


@contextmanager
def door(*arguments: object) -> Iterator[str]:
    """Run the command for the block: the address that it prints."""
    command = [sys.executable, "-m", "sdgrpc", "web", "--listen", "127.0.0.1:0", *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("listening on http"), line
        yield line.split()[-1]
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert process.returncode in (0, -signal.SIGTERM)


def test_draws_and_ends_when_told(server) -> None:
    """It prints where it listens, draws there, goes by a further name and lets a named origin call."""
    extra = ("--host-name", "pictures.example", "--cors", "https://page.example")
    with door("--server", server.target, *extra) as root:
        named = {"host": "pictures.example", "origin": "https://page.example"}
        answer = httpx.post(f"{root}/v1/images/generations", json=ASK, headers=named, timeout=30)
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == "https://page.example"
        other = httpx.get(f"{root}/v1/models", headers={"host": "other.example"})
        assert other.status_code == 421


def test_tls_and_callers_certificates(server, tmp_path: Path) -> None:
    """HTTPS with its own certificate, and only for callers whose authority it knows."""
    authority(tmp_path)
    signed(tmp_path, "door")
    signed(tmp_path, "caller")
    own = ("--listen-certificate", tmp_path / "door.pem", "--listen-key", tmp_path / "door.key")
    with door("--server", server.target, *own, "--listen-client-ca", tmp_path / "ca.pem") as address:
        assert address.startswith("https://127.0.0.1:")
        root = address.replace("127.0.0.1", "localhost")
        trust = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
        with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError, httpx.ConnectError)):
            httpx.get(f"{root}/v1/models", verify=trust)
        trust.load_cert_chain(tmp_path / "caller.pem", tmp_path / "caller.key")
        assert httpx.post(f"{root}/v1/images/generations", json=ASK, verify=trust).status_code == 200


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--listen", "0.0.0.0:0"], "other machines may reach 0.0.0.0:0, and there is no TLS"),
        (["--listen", "8080"], "'8080' is not HOST:PORT"),
        (["--listen", "127.0.0.1:0", "--listen-key", "door.key"], "belong together"),
        (
            ["--listen", "127.0.0.1:0", "--listen-client-ca", "ca.pem"],
            "a client authority needs a certificate",
        ),
        (["--listen", "0.0.0.0:0", "--insecure", "--token", "secret"], "would draw with it"),
        (["--listen", "192.0.2.1:0", "--insecure"], "cannot listen on 192.0.2.1:0"),
    ],
)
def test_refused_before_it_listens(run, arguments, said) -> None:
    """What would expose a server, or cannot be, is a line on standard error and status 1."""
    result = run("web", *arguments)
    assert result.exit_code == 1
    assert said in " ".join(result.stderr.split())
    assert "secret" not in result.stderr


def test_a_certificate_that_is_none(run, tmp_path: Path) -> None:
    """A file that is missing or no certificate is named."""
    (tmp_path / "door.pem").write_text("nothing")
    for certificate in ("door.pem", "missing.pem"):
        own = ("--listen-certificate", certificate, "--listen-key", "door.pem")
        result = run("web", "--listen", "127.0.0.1:0", *own)
        assert result.exit_code == 1
        assert certificate in result.stderr
    authority(tmp_path)
    trusted = ("--listen-certificate", "ca.pem", "--listen-key", "ca.key", "--listen-client-ca", "door.pem")
    assert "door.pem is no authority" in run("web", "--listen", "127.0.0.1:0", *trusted).stderr
