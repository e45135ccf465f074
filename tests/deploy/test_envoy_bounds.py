"""What Envoy ends or refuses by itself: connections above the bound, callers and servers that say nothing."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from sdgrpc.client import Client, UnavailableError
from sdgrpc.testing import ScriptedServer, draw_script, scripted_server
from sdgrpc.v1 import diffusion_pb2 as pb
from tests.deploy.test_envoy_doors import TYPE, ask, frame
from tests.deploy.test_envoy_outliers import unasked
from tests.support import http2
from tests.support.envoy import Envoy, running_envoy, until

ROOT = Path(__file__).resolve().parents[2]
Changed = dict[str, Any]


def manager_of(bootstrap: Changed) -> Changed:
    """The listener's part that speaks HTTP."""
    (listener,) = bootstrap["static_resources"]["listeners"]
    (chain,) = listener["filter_chains"]
    (only,) = chain["filters"]
    return only["typed_config"]


@contextmanager
def silent() -> Iterator[str]:
    """A server that connections reach, and that never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"127.0.0.1:{listening.getsockname()[1]}"


@contextmanager
def one_server(folder: Path, **changes: Any) -> Iterator[tuple[ScriptedServer, Envoy]]:
    """A scripted server behind an Envoy whose bootstrap is changed."""
    with scripted_server(draw_script(2)) as server:
        server.serve()
        with running_envoy(folder, [server.target], **changes) as envoy:
            yield server, envoy


def connect(envoy: Envoy) -> socket.socket:
    host, _, port = envoy.target.rpartition(":")
    return socket.create_connection((host, int(port)), 30)


def test_connections_are_bounded(tmp_path: Path) -> None:
    """Each of five above the bound is closed at once, jobs of those below go on, and room is used again."""

    def two(bootstrap: Changed) -> None:
        (monitor,) = bootstrap["overload_manager"]["resource_monitors"]
        assert monitor["typed_config"]["max_active_downstream_connections"] == 1000
        monitor["typed_config"]["max_active_downstream_connections"] = 2

    with one_server(tmp_path, change_bootstrap=two) as (_, envoy), Client(envoy.target) as client:
        job = client.generate("a")
        next(iter(job))
        with connect(envoy) as second:
            for _ in range(5):
                with connect(envoy) as above:
                    assert above.recv(1) == b""
            second.settimeout(0)
            with pytest.raises(BlockingIOError):  # it stays
                second.recv(1)
            assert job.images()
        until(lambda: b"HTTP/1.1 " in answer_of(envoy))
        assert client.generate("b").images()


def answer_of(envoy: Envoy) -> bytes:
    """What comes of a request over a connection of its own; nothing where it is closed at once."""
    with connect(envoy) as another:
        try:
            another.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            return another.recv(64)
        except ConnectionError:
            return b""


def test_slow_headers_end_their_request(tmp_path: Path) -> None:
    """A caller that sends the beginning of a request and no more is told, and left."""

    def soon(bootstrap: Changed) -> None:
        manager = manager_of(bootstrap)
        assert manager["request_headers_timeout"] == "10s"
        manager["request_headers_timeout"] = "0.2s"

    with one_server(tmp_path, change_bootstrap=soon) as (_, envoy), connect(envoy) as slow:
        slow.sendall(b"POST / HTTP/1.1\r\nHost: a\r\n")
        assert slow.recv(1 << 12).startswith(b"HTTP/1.1 408 ")
        assert slow.recv(1) == b""


@pytest.mark.parametrize("answers", [True, False], ids=["answers", "silent"])
def test_who_answers_no_ping_is_left(tmp_path: Path, answers: bool) -> None:
    """A caller that is gone without a word holds no connection; one that answers keeps its own."""

    def soon(bootstrap: Changed) -> None:
        options = manager_of(bootstrap)["http2_protocol_options"]
        assert options["connection_keepalive"] == {"interval": "60s", "timeout": "20s"}
        options["connection_keepalive"] = {"interval": "0.2s", "timeout": "0.2s" if not answers else "20s"}

    async def pings(target: str) -> int:
        wire = await http2.Wire.open(target, http2.PREFACE + http2.frame(http2.SETTINGS))
        count = 0
        for count in range(1, 4):
            payload = await wire.read(http2.PING)
            if not answers:
                await wire.until_closed()
                return count
            await wire.send(http2.frame(http2.PING, payload, flags=1))
        wire.close()
        return count

    with one_server(tmp_path, change_bootstrap=soon) as (_, envoy):
        assert asyncio.run(pings(envoy.target)) == (3 if answers else 1)


def test_a_server_that_answers_no_ping_is_left(tmp_path: Path) -> None:
    """Its calls end as UNAVAILABLE, though they have no deadline and nobody asks its health."""

    def soon(cluster: Changed) -> None:
        unasked(cluster)
        (options,) = cluster["typed_extension_protocol_options"].values()
        spoken = options["explicit_http_config"]["http2_protocol_options"]
        assert spoken["connection_keepalive"].keys() == {"interval", "timeout"}
        spoken["connection_keepalive"] = {"interval": "0.2s", "timeout": "0.2s"}

    with (
        silent() as server,
        running_envoy(tmp_path, [server], change=soon) as envoy,
        Client(envoy.target, resume_seconds=0) as client,
        pytest.raises(UnavailableError),
    ):
        client.generate("a").images()


@pytest.mark.parametrize("job", [None, "mine"], ids=["any", "kept"])
def test_a_deadline_is_envoys_too(tmp_path: Path, job: str | None) -> None:
    """Where a server hangs Envoy itself ends the call when its caller's time is up, on either route."""
    more = {"x_sdgrpc_job": job} if job else {}
    with silent() as server, running_envoy(tmp_path, [server], change=unasked) as envoy:
        request = frame(pb.GenerateRequest(prompt="a"))
        response, _ = ask(envoy.target, "POST", request, content_type=TYPE, grpc_timeout="300m", **more)
        assert response.headers["grpc-message"] == "downstream duration timeout"


def test_health_is_asked_where_nobody_calls(tmp_path: Path) -> None:
    """Again and again, and of what draws: a server that is up and still loads its models gets no call."""
    with (
        scripted_server(draw_script(1)) as server,
        running_envoy(tmp_path, [server.target], healthy=[]) as envoy,
    ):
        for cluster in ("sdgrpc", "sdgrpc_kept"):
            until(partial(has_asked, envoy, cluster, 4))
            assert envoy.healthy(cluster) == set()
        server.serve()
        envoy.until_healthy([server.target])


def test_a_server_that_hangs_gets_no_calls(tmp_path: Path) -> None:
    """Its port takes connections, and its health says nothing any more."""

    def soon(cluster: Changed) -> None:
        (check,) = cluster["health_checks"]
        assert check["unhealthy_threshold"] == 2
        check["timeout"] = "0.5s"

    command = [sys.executable, "-m", "tests.support.dying"]
    with (
        scripted_server(draw_script(1)) as other,
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as hanging,
    ):
        other.serve()
        try:
            target = hanging.stdout.readline().strip()
            with running_envoy(tmp_path, [target, other.target], change=soon) as envoy:
                hanging.send_signal(signal.SIGSTOP)
                envoy.until_healthy([other.target])
                with Client(envoy.target, resume_seconds=0) as client:
                    for _ in range(8):
                        client.generate("a").images()
        finally:
            hanging.kill()
    assert len(other.requests) == 8


def has_asked(envoy: Envoy, cluster: str, times: int) -> bool:
    """Whether Envoy has asked a cluster's servers for their health so many times."""
    counters = {one["name"]: one["value"] for one in envoy.ask("/stats")["stats"] if "name" in one}
    return int(counters[f"cluster.{cluster}.health_check.attempt"]) >= times
