"""How servers are reached."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import grpc
import pytest

from sdgrpc import client as api
from sdgrpc.client import Client
from sdgrpc.testing.server import (
    draw_script,
    scripted_server,
)


@pytest.mark.skipif(
    shutil.which("openssl") is None and not os.environ.get("SDGRPC_REQUIRE_ALL"), reason="needs openssl"
)
def test_tls(tmp_path: Path) -> None:
    """A server with TLS is reached with its authority, and only with it."""
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost"
    files = ["-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", certificate]
    subprocess.run([*command.split(), *files], check=True, capture_output=True)
    credentials = grpc.ssl_server_credentials([(key.read_bytes(), certificate.read_bytes())])
    with scripted_server(draw_script(), credentials) as server:
        with Client(server.target, tls=api.Tls(ca=certificate, server_name="localhost")) as client:
            assert len(client.generate("a star").images()) == 1
        with Client(server.target, tls=api.Tls()) as client, pytest.raises(api.UnavailableError):
            client.generate("a star").images()
    with pytest.raises(ValueError, match="both `certificate` and `key`"):
        api.Tls(certificate=certificate).credentials()
