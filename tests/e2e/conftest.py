"""One real server for all tests over a real port, with the embedded model and its LoRAs."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import pytest

from sdgrpc.v1 import diffusion_pb2_grpc as pb_grpc
from tests.support.server import ServerProcess, running_server


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """The process; `server.target` is HOST:PORT."""
    with running_server(tmp_path_factory.mktemp("server") / "server.log") as running:
        yield running


@pytest.fixture(scope="session")
def channel(server: ServerProcess) -> Iterator[grpc.Channel]:
    """A connection to it."""
    with grpc.insecure_channel(server.target, [("grpc.max_receive_message_length", -1)]) as channel:
        yield channel


@pytest.fixture(scope="session")
def stub(channel: grpc.Channel) -> pb_grpc.DiffusionServiceStub:
    """The service on it."""
    return pb_grpc.DiffusionServiceStub(channel)
