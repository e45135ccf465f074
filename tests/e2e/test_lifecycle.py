"""A server process from its start to its end, by signals."""

from __future__ import annotations

import contextlib
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from sdgrpc.v1 import diffusion_pb2 as pb
from sdgrpc.v1 import diffusion_pb2_grpc as pb_grpc
from tests.support.api import details_of, generate
from tests.support.server import ServerProcess, running_server, started_server, target_of

LONG = generate(sampling=pb.Sampling(steps=50, seed=1))
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


@contextlib.contextmanager
def connected(target: str) -> Iterator[tuple[pb_grpc.DiffusionServiceStub, health_pb2_grpc.HealthStub]]:
    with grpc.insecure_channel(target) as channel:
        yield pb_grpc.DiffusionServiceStub(channel), health_pb2_grpc.HealthStub(channel)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def check_drain(server: ServerProcess) -> None:
    """SIGTERM while a job runs: it gets its picture, new ones are refused, the process ends with 0."""
    with connected(server.target) as (stub, health):
        job = stub.Generate(LONG)
        while next(job).progress.step < 2:
            pass
        states = health.Watch(health_pb2.HealthCheckRequest())  # type: ignore[attr-defined]
        assert next(states).status == SERVING
        server.signal(signal.SIGTERM)
        assert next(states).status == NOT_SERVING
        with pytest.raises(grpc.RpcError) as caught:
            list(stub.Generate(generate()))
        assert details_of(caught.value)["ErrorInfo"].reason == "DRAINING"
        assert list(job)[-1].HasField("finished")
        with pytest.raises(grpc.RpcError) as caught:
            next(states)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert server.wait() == 0
        assert "Traceback" not in server.log_text()


def test_from_the_first_step_to_the_last_job(tmp_path: Path) -> None:
    """NOT_SERVING until the model is loaded and has drawn a step, then one line; SIGTERM drains."""
    port, log = free_port(), tmp_path / "log"
    with started_server(log, "--listen", f"127.0.0.1:{port}") as process:
        with connected(f"127.0.0.1:{port}") as (stub, health):
            states = health.Watch(health_pb2.HealthCheckRequest(), wait_for_ready=True, timeout=100)  # type: ignore[attr-defined]
            assert next(states).status == NOT_SERVING
            with pytest.raises(grpc.RpcError) as caught:
                list(stub.Generate(generate()))
            details = details_of(caught.value)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            assert details["ErrorInfo"].reason == "LOADING"
            assert details["RetryInfo"].retry_delay.seconds > 0
            assert next(states).status == SERVING
            assert "drew its first step" in log.read_text("utf-8")
            assert target_of(process, log) == f"127.0.0.1:{port}"
        check_drain(ServerProcess(f"127.0.0.1:{port}", process, log))
        assert process.stdout.read() == ""


def test_a_second_signal_stops_at_once(tmp_path: Path) -> None:
    """The running job is cut off. A script that read the line may have closed its end of the pipe."""
    with (
        running_server(tmp_path / "log", "--drain-timeout", "600") as server,
        connected(server.target) as (stub, _),
    ):
        server.process.stdout.close()
        job = stub.Generate(generate(sampling=pb.Sampling(steps=150, image_count=8)))
        while next(job).progress.step < 2:
            pass
        server.signal(signal.SIGINT)
        with pytest.raises(grpc.RpcError) as caught:  # the first signal has arrived
            while True:
                list(stub.Generate(generate(sampling=pb.Sampling(steps=1))))
        assert details_of(caught.value)["ErrorInfo"].reason == "DRAINING"
        started = time.monotonic()
        server.signal(signal.SIGINT)
        with pytest.raises(grpc.RpcError):
            list(job)
        assert server.wait() == 0
        assert time.monotonic() - started < 20


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--model", "/nope"), "/nope"),
        (("--max-steps", "0"), "max_steps: input should be greater than or equal to 1, not 0"),
        (("--lora-dir", "/nope"), "lora_dir: /nope is not a folder"),
    ],
)
def test_a_server_that_cannot_start_says_why(
    tmp_path: Path, arguments: tuple[str, ...], sentence: str
) -> None:
    """Exit status 1, nothing on standard output, one line that names what is wrong."""
    with started_server(tmp_path / "log", *arguments) as process:
        assert process.wait(60) == 1
        assert process.stdout.read() == ""
    lines = (tmp_path / "log").read_text("utf-8").splitlines()
    assert lines[-1].startswith("error: ")
    assert sentence in lines[-1]
    assert "Traceback" not in "\n".join(lines)


def test_a_taken_port_is_named(server, tmp_path: Path) -> None:
    """Two servers never share a port by accident."""
    with started_server(tmp_path / "log", "--listen", server.target) as process:
        assert process.wait(60) == 1
    assert f"error: cannot listen on {server.target}" in (tmp_path / "log").read_text("utf-8")
