"""A real server that was told not to let jobs share UNet calls."""

from __future__ import annotations

from pathlib import Path

import grpc

from sdgrpc.v1 import catalog_pb2, catalog_pb2_grpc
from sdgrpc.v1 import diffusion_pb2 as pb
from sdgrpc.v1 import diffusion_pb2_grpc as pb_grpc
from tests.support.server import ServerProcess, of_one_engine, running_server

# The second is sent while the first is drawn, and takes so few turns that it ends before the first does.
LONG = pb.GenerateRequest(prompt="a red star on a blue background", sampling=pb.Sampling(steps=100, seed=1))
SHORT = pb.GenerateRequest(prompt="a green heart on a pink background", sampling=pb.Sampling(steps=4, seed=2))


def drawn(events: list[pb.JobEvent]) -> tuple[bytes, int]:
    """Return a job's picture, and the most jobs that shared one of its calls."""
    (image,) = [event.image.image.data for event in events if event.HasField("image")]
    return image, events[-1].finished.largest_batch


def at_once(channel: grpc.Channel) -> list[tuple[bytes, int]]:
    """Draw both side by side, as the server's own count of running jobs confirms."""
    stub, catalog = pb_grpc.DiffusionServiceStub(channel), catalog_pb2_grpc.CatalogServiceStub(channel)
    first = stub.Generate(LONG)
    begun = []
    while not (begun and begun[-1].HasField("progress")):
        begun.append(next(first))
    short = list(stub.Generate(SHORT))
    watch = catalog.WatchStatus(catalog_pb2.WatchStatusRequest())
    assert next(watch).running == 1
    watch.cancel()
    return [drawn([*begun, *first]), drawn(short)]


@of_one_engine
def test_company_changes_no_byte(tmp_path: Path, server: ServerProcess) -> None:
    """Two jobs at once get the bytes that each gets alone; without the flag they would share calls."""
    with (
        running_server(tmp_path / "log", "--no-batching") as unbatched,
        grpc.insecure_channel(unbatched.target) as channel,
    ):
        stub = pb_grpc.DiffusionServiceStub(channel)
        alone = [drawn(list(stub.Generate(request))) for request in (LONG, SHORT)]
        assert [batch for _, batch in alone] == [1, 1]
        assert at_once(channel) == alone
    with grpc.insecure_channel(server.target) as channel:
        assert [batch for _, batch in at_once(channel)] == [2, 2]
