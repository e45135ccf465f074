"""A real server that asks who calls: tokens, bounds for each, a socket, TLS that is renewed."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from sdgrpc import client as api
from sdgrpc.v1 import diffusion_pb2 as pb
from sdgrpc.v1 import diffusion_pb2_grpc as pb_grpc
from tests.support.api import details_of
from tests.support.certificates import authority, signed
from tests.support.server import REPLICAS, ServerProcess, environment, running_server

ANN, BOB = "s3cret-of-ann", "s3cret-of-bob"
ENGINES = int(REPLICAS or 1)
"""Each draws as many jobs of a token as it may; what waits is counted over all of them."""


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server on a socket, with two tokens, of each one job running and one waiting."""
    folder = tmp_path_factory.mktemp("guarded")
    (folder / "tokens").write_text(f"# who\nann: {ANN}\nbob {BOB}\n")
    bounds = ("--max-running-jobs-per-token", "1", "--max-queued-jobs-per-token", "1")
    listen = ("--listen", f"unix:{folder}/own/s", "--token-file", str(folder / "tokens"))
    with running_server(folder / "server.log", *listen, *bounds) as running:
        assert running.target == f"unix:{folder}/own/s"
        yield running


def as_(token: str) -> list[tuple[str, str]]:
    return [("authorization", f"Bearer {token}")]


def long_job(steps: int = 150) -> pb.GenerateRequest:
    return pb.GenerateRequest(prompt="a star", sampling=pb.Sampling(steps=steps, image_count=4, seed=1))


def test_the_client_and_the_command_line_show_a_token(guarded: ServerProcess, tmp_path: Path) -> None:
    """With it they draw; without it they are told what is missing; health needs none."""
    with api.Client(guarded.target, token=ANN) as client:
        assert client.list_models()
        assert len(client.generate("a star", steps=1).images()) == 1
    with api.Client(guarded.target) as client, pytest.raises(api.UnauthenticatedError):
        client.list_models()
    command = [sys.executable, "-m", "sdgrpc"]
    draw = [
        *command,
        "generate",
        "a star",
        "--server",
        guarded.target,
        "--steps",
        "1",
        "--output",
        str(tmp_path / "star.png"),
    ]
    for token, status in ((BOB, 0), ("", 1)):
        variables = {**environment(), **({"SDGRPC_TOKEN": token} if token else {})}
        done = subprocess.run(draw, env=variables, capture_output=True, text=True, timeout=100, check=False)
        assert done.returncode == status, done.stderr
    assert "UNAUTHENTICATED" in done.stderr or "token" in done.stderr
    health = [*command, "health", "--server", guarded.target]
    assert subprocess.run(health, env=environment(), capture_output=True, check=False).returncode == 0


def test_each_token_has_its_bounds(guarded: ServerProcess) -> None:
    """Ann's job waits for her running ones, her next is refused; Bob's goes past. The log names them."""
    with grpc.insecure_channel(guarded.target) as channel:
        stub = pb_grpc.DiffusionServiceStub(channel)
        running = []
        for _ in range(ENGINES):
            running.append(stub.Generate(long_job(), metadata=as_(ANN)))
            assert [next(running[-1]).WhichOneof("event") for _ in range(2)] == ["accepted", "prepared"]
        waiting = stub.Generate(long_job(), metadata=as_(ANN))
        assert next(waiting).WhichOneof("event") == "accepted"
        with pytest.raises(grpc.RpcError) as caught:
            list(stub.Generate(long_job(), metadata=as_(ANN)))
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        details = details_of(caught.value)
        assert details["ErrorInfo"].reason == "TOKEN_QUEUE_FULL"
        assert "max_queued_jobs_per_token" in caught.value.details()
        assert details["RetryInfo"].retry_delay.seconds >= 1
        bobs = list(stub.Generate(long_job(steps=2), metadata=as_(BOB)))
        assert bobs[-1].HasField("finished")
        assert bobs[0].accepted.queue_position == 0, "his turn comes before the one that waits"
        for one in running:
            one.cancel()
        assert next(waiting).WhichOneof("event") == "prepared", "those before it have ended"
        waiting.cancel()
    log = guarded.log_text()
    assert "token='bob'" in log
    assert "s3cret" not in log


def test_a_killed_server_leaves_a_socket_that_the_next_takes(tmp_path: Path) -> None:
    """Nobody has to remove it by hand; a second server beside a living one is refused."""
    listen = f"unix:{tmp_path}/own/s"
    with running_server(tmp_path / "first.log", "--listen", listen) as first:
        second = [sys.executable, "-m", "sdgrpc", "serve", "--listen", listen]
        refused = subprocess.run(
            second, env=environment(), capture_output=True, text=True, timeout=100, check=False
        )
        assert refused.returncode != 0
        assert "another server does" in refused.stderr
        first.signal(signal.SIGKILL)
        first.wait()
    assert (tmp_path / "own/s").exists()
    with running_server(tmp_path / "next.log", "--listen", listen) as running:
        with api.Client(running.target) as client:
            assert client.list_models()
        running.signal(signal.SIGTERM)
        assert running.wait() == 0
    assert not (tmp_path / "own/s").exists()


def test_tls_is_renewed_without_a_restart(tmp_path: Path) -> None:
    """A client that trusts the new authority alone is served after the files were written over."""
    for name, server in (("ca", "server"), ("new-ca", "renewed")):
        authority(tmp_path, name)
        signed(tmp_path, server, name)
    files = {"--tls-certificate": "server.pem", "--tls-key": "server.key"}
    arguments = [part for flag, file in files.items() for part in (flag, str(tmp_path / file))]
    with running_server(tmp_path / "server.log", *arguments) as running:
        target = running.target.replace("127.0.0.1", "localhost")

        def draws(trusted: str) -> bool:
            tls = api.Tls(ca=tmp_path / trusted)
            with api.Client(target, tls=tls, options=[("grpc.use_local_subchannel_pool", 1)]) as client:
                try:
                    return len(client.generate("a star", steps=1).images()) == 1
                except api.UnavailableError:
                    return False

        assert [draws("ca.pem"), draws("new-ca.pem")] == [True, False]
        for ending in ("pem", "key"):
            (tmp_path / f"renewed.{ending}").replace(tmp_path / f"server.{ending}")
        assert [draws("ca.pem"), draws("new-ca.pem")] == [False, True]
