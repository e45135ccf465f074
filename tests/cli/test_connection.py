"""How every command reaches a server: TLS, certificates, tokens, and targets as people write them."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from sdgrpc.cli.connection import ConnectionOptions
from sdgrpc.testing.scripted_catalog import Catalog
from sdgrpc.testing.server import ScriptedServer, draw_script, png
from sdgrpc.v1.catalog_pb2_grpc import add_CatalogServiceServicer_to_server
from sdgrpc.v1.diffusion_pb2_grpc import add_DiffusionServiceServicer_to_server
from tests.client.test_headers import Guard
from tests.support.certificates import authority, signed

COMMANDS = [
    ["generate", "a star"],
    ["transform", "a star", "-i", "in.png"],
    ["inpaint", "a star", "-i", "in.png", "--mask", "in.png"],
    ["status"],
    ["loras", "served"],
    ["loras", "upload", "in.png"],
    ["models", "served"],
    ["health"],
]
"""Each command that talks to a server."""
each_command = pytest.mark.parametrize("command", COMMANDS, ids=" ".join)


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority, a server's and a client's certificate, and another authority that nobody trusts."""
    folder = tmp_path_factory.mktemp("pem")
    for name in ("ca", "other"):
        authority(folder, name)
    signed(folder, "server")
    signed(folder, "client")
    return folder


@contextmanager
def everything(
    credentials: grpc.ServerCredentials | None = None, guard: Guard | None = None
) -> Iterator[int]:
    """A server with every service, on a port of its own."""
    server = grpc.server(ThreadPoolExecutor(max_workers=4), interceptors=[guard] if guard else [])
    add_DiffusionServiceServicer_to_server(ScriptedServer(draw_script()), server)
    add_CatalogServiceServicer_to_server(Catalog(), server)
    ready = health.HealthServicer()
    ready.set("sdgrpc.v1.DiffusionService", health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(ready, server)
    place = "127.0.0.1:0"
    port = server.add_secure_port(place, credentials) if credentials else server.add_insecure_port(place)
    server.start()
    try:
        yield port
    finally:
        server.stop(None).wait()


def mutual(pem: Path) -> grpc.ServerCredentials:
    """TLS of a server that asks for certificates."""
    pair = ((pem / "server.key").read_bytes(), (pem / "server.pem").read_bytes())
    return grpc.ssl_server_credentials([pair], (pem / "ca.pem").read_bytes(), require_client_auth=True)


@pytest.fixture
def picture(tmp_path: Path) -> None:
    (tmp_path / "in.png").write_bytes(png())


@each_command
@pytest.mark.usefixtures("picture")
def test_mutual_tls(run, pem: Path, command: list[str]) -> None:
    """Every command shows its certificate, by flags and by the environment; without one it is refused."""
    own = ["--tls-certificate", pem / "client.pem", "--tls-key", pem / "client.key"]
    with everything(mutual(pem)) as port:
        target = ["--server", f"localhost:{port}", "--tls-ca", pem / "ca.pem"]
        done = run(*command, *target, *own)
        assert done.exit_code == 0, done.output
        refused = run(*command, *target, *(["--wait", "1"] if command == ["health"] else []))
        assert refused.exit_code == 1
        half = run(*command, *target, *own[:2])
        assert "needs both `certificate` and `key`" in half.stderr


@each_command
@pytest.mark.usefixtures("picture")
def test_the_environment_says_it_too(run, pem: Path, command: list[str], monkeypatch) -> None:
    """Every connection option but the switches is a variable."""
    monkeypatch.setenv("SDGRPC_CA", str(pem / "ca.pem"))
    monkeypatch.setenv("SDGRPC_CLIENT_CERTIFICATE", str(pem / "client.pem"))
    monkeypatch.setenv("SDGRPC_CLIENT_KEY", str(pem / "client.key"))
    with everything(mutual(pem)) as port:
        monkeypatch.setenv("SDGRPC_SERVER", f"https://localhost:{port}")
        done = run(*command)
        assert done.exit_code == 0, done.output


@each_command
@pytest.mark.usefixtures("picture")
def test_the_token(run, command: list[str], monkeypatch) -> None:
    """It goes with every command, by the flag or the variable; without it the message says where it goes."""
    guard = Guard()
    with everything(guard=guard) as port:
        target = ["--server", f"http://127.0.0.1:{port}"]
        assert run(*command, *target, "--token", "s3cret").exit_code == 0
        refused = run(*command, *target)
        assert refused.exit_code == 1
        assert "give the token with --token, or in SDGRPC_TOKEN" in refused.stderr
        monkeypatch.setenv("SDGRPC_TOKEN", "s3cret")
        assert run(*command, *target).exit_code == 0
    assert {shown for _, shown in guard.seen} == {"Bearer s3cret", None}


def test_an_authority_that_did_not_sign(run, pem: Path) -> None:
    """A server that another authority vouches for is not talked to."""
    pair = ((pem / "server.key").read_bytes(), (pem / "server.pem").read_bytes())
    with everything(grpc.ssl_server_credentials([pair])) as port:
        target = ["--server", f"localhost:{port}"]
        assert run("models", "served", *target, "--tls-ca", pem / "ca.pem").exit_code == 0
        other = run("models", "served", *target, "--tls-ca", pem / "other.pem")
        assert other.exit_code == 1
        assert "no server answers at localhost" in other.stderr


def test_any_option_of_tls_turns_it_on() -> None:
    """And none of them leaves it off."""
    assert ConnectionOptions().trust() is None
    for given in ({"tls": True}, {"tls_ca": Path("x")}, {"tls_server_name": "x"}, {"tls_key": Path("x")}):
        assert ConnectionOptions(**given).trust() is not None
