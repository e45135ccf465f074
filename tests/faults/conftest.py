"""A real server process with failpoints, and a client of it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from sdgrpc.v1 import catalog_pb2_grpc
from sdgrpc.v1 import diffusion_pb2 as pb
from sdgrpc.v1 import diffusion_pb2_grpc as pb_grpc
from tests.support.api import details_of
from tests.support.server import ServerProcess, environment, target_of

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


@dataclass(frozen=True)
class FaultyServer(ServerProcess):
    """A server that does at its failpoints what `order` says, and stubs of its services."""

    control: Path
    channel: grpc.Channel

    def order(self, where: str, what: str) -> None:
        """Let a fault happen from the next time on that the place is reached."""
        whole = self.control.with_suffix(".new")
        whole.write_text(f"{where} {what}", "utf-8")
        whole.rename(self.control)

    def until_hanging(self) -> None:
        """Return once a thread hangs, as was ordered."""
        while not self.control.with_suffix(".reached").exists():
            assert self.process.poll() is None
            time.sleep(0.02)

    def heal(self) -> None:
        """Let no fault happen any more."""
        self.control.write_text("", "utf-8")

    @property
    def stub(self) -> pb_grpc.DiffusionServiceStub:
        return pb_grpc.DiffusionServiceStub(self.channel)

    @property
    def catalog(self) -> catalog_pb2_grpc.CatalogServiceStub:
        return catalog_pb2_grpc.CatalogServiceStub(self.channel)

    def health(self):
        """The states that a watcher is told."""
        watch = health_pb2_grpc.HealthStub(self.channel).Watch(health_pb2.HealthCheckRequest())  # type: ignore[attr-defined]
        return (state.status for state in watch)

    def images(self, request: pb.GenerateRequest) -> list[bytes]:
        """Draw, and return the images' files."""
        return [each.image.image.data for each in self.stub.Generate(request) if each.HasField("image")]

    def fatal_lines(self) -> list[str]:
        return [line for line in self.log_text().splitlines() if "the engine cannot go on" in line]


@contextmanager
def started_faulty(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Start a server with failpoints and yield its process at once; kill it with the block."""
    command = [sys.executable, "-m", "tests.faults.launcher", str(folder / "control")]
    command += ["serve", "--listen", "127.0.0.1:0", *arguments]
    with (
        (folder / "log").open("w", encoding="utf-8") as sink,
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=sink,
            stdin=subprocess.DEVNULL,
            text=True,
            env=environment(),
        ) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def faulty_server(folder: Path, *arguments: str) -> Iterator[FaultyServer]:
    """Start a server with failpoints, yield it once it is ready, and kill it with the block."""
    with started_faulty(folder, *arguments) as process:
        target = target_of(process, folder / "log")
        with grpc.insecure_channel(target, [("grpc.max_receive_message_length", -1)]) as channel:
            yield FaultyServer(target, process, folder / "log", folder / "control", channel)


@pytest.fixture
def open_faulty(tmp_path: Path) -> Callable[..., object]:
    """A context manager that starts a server with failpoints and the given flags."""
    return lambda *arguments: faulty_server(tmp_path, *arguments)


def failure(call: Sequence[object]) -> grpc.RpcError:
    """How a call fails."""
    with pytest.raises(grpc.RpcError) as caught:
        list(call)
    return caught.value


def reason_of(error: grpc.RpcError) -> str:
    """The reason that its details name."""
    return details_of(error)["ErrorInfo"].reason
