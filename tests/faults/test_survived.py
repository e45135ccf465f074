"""Faults that cost a job at most: the server goes on, and draws what it always drew."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import pytest

from sdgrpc.v1 import catalog_pb2 as cat
from sdgrpc.v1 import diffusion_pb2 as pb
from tests.faults.conftest import FaultyServer, failure, faulty_server, reason_of
from tests.support.api import generate

SEPIA = pb.Lora(name="sepia", strength=0.7)
REQUEST = generate(sampling=pb.Sampling(steps=8, seed=5))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultyServer]:
    """One for all: each test leaves it as it was."""
    with faulty_server(tmp_path_factory.mktemp("survived")) as server:
        yield server


@pytest.fixture
def healthy(server: FaultyServer) -> Iterator[FaultyServer]:
    """The server, which draws the same bytes before and after, and holds nothing more."""
    expected = server.images(REQUEST)
    yield server
    server.heal()
    assert server.images(REQUEST) == expected
    status = next(server.catalog.WatchStatus(cat.WatchStatusRequest()))
    assert (status.ready, status.running, status.queued) == (True, 0, 0)
    assert not [held for held in status.lora_sets if held.in_use]


@pytest.mark.parametrize("where", ["prepare", "encode", "decode", "write", "acquire"])
@pytest.mark.parametrize("what", ["mem", "oom1"])
def test_running_out_of_memory_ends_one_job(healthy: FaultyServer, where: str, what: str) -> None:
    """A plain MemoryError and torch's own are OUT_OF_MEMORY wherever they are met; the next job is drawn."""
    healthy.order(where, what)
    request = generate(loras=[SEPIA], prompt=f"a star where {where} has {what}")
    error = failure(healthy.stub.Generate(request))
    assert (error.code(), reason_of(error)) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "OUT_OF_MEMORY")
    assert healthy.images(request)


@pytest.mark.parametrize("what", ["mem", "oom1"])
def test_a_call_that_runs_out_of_memory_is_made_smaller(healthy: FaultyServer, what: str) -> None:
    """The job is drawn; the same request alone gives its usual bytes right afterwards (see `healthy`)."""
    healthy.order("predict", what)
    assert len(healthy.images(REQUEST)) == 1


def test_a_job_that_never_fits_is_told(healthy: FaultyServer) -> None:
    """When not one row can be evaluated."""
    healthy.order("predict", "oom")
    assert reason_of(failure(healthy.stub.Generate(REQUEST))) == "OUT_OF_MEMORY"


@pytest.mark.parametrize("what", ["mem", "oom"])
def test_a_preview_without_memory_is_left_out(healthy: FaultyServer, what: str) -> None:
    """The picture is drawn all the same."""
    healthy.order("preview", what)
    output = pb.Output(preview=pb.PreviewOptions(kind=pb.PREVIEW_KIND_PICTURE))
    events = list(healthy.stub.Generate(generate(output=output, sampling=pb.Sampling(steps=8, seed=5))))
    assert events[-1].HasField("finished")


@pytest.mark.parametrize("where", ["predict", "prepare", "encode", "decode", "acquire", "write"])
def test_a_bug_costs_one_job(healthy: FaultyServer, where: str) -> None:
    """INTERNAL with an id; the cause is in the log and not in the status."""
    healthy.order(where, "bug")
    error = failure(healthy.stub.Generate(REQUEST))
    assert (error.code(), reason_of(error)) == (grpc.StatusCode.INTERNAL, "INTERNAL")
    assert "bug" not in error.details()


@pytest.mark.parametrize("what", ["mem", "oom1"])
def test_a_set_that_cannot_be_fused_for_lack_of_memory(healthy: FaultyServer, what: str) -> None:
    """PrepareLoras says so too."""
    healthy.order("acquire", what)
    with pytest.raises(grpc.RpcError) as caught:
        healthy.catalog.PrepareLoras(cat.PrepareLorasRequest(loras=[SEPIA]))
    assert reason_of(caught.value) == "OUT_OF_MEMORY"


def test_a_job_that_cannot_meet_its_deadline_is_refused_at_once(healthy: FaultyServer) -> None:
    """With what it would take, once its size was measured; one with time enough is drawn."""
    for _ in range(3):
        healthy.images(REQUEST)
    long = generate(sampling=pb.Sampling(steps=150, image_count=8))
    error = failure(healthy.stub.Generate(long, timeout=0.5))
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert reason_of(error) == "DEADLINE_TOO_SOON"
    assert "this would take about" in error.details()
    assert "150 steps of 128x128" in error.details()
    assert list(healthy.stub.Generate(REQUEST, timeout=600))[-1].HasField("finished")


@pytest.mark.parametrize("where", ["acquire", "encode", "predict", "decode", "write"])
def test_a_deadline_that_passes_ends_the_work(healthy: FaultyServer, where: str) -> None:
    """Wherever it is: nothing of the job is left, long before it would have been drawn."""
    request = generate(prompt=f"late in {where}", sampling=pb.Sampling(steps=150, image_count=8), width=192)
    healthy.order(where, "slow")
    error = failure(healthy.stub.Generate(request, timeout=0.4))
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    healthy.heal()
    for status in healthy.catalog.WatchStatus(cat.WatchStatusRequest(), timeout=60):
        if status.running == 0:
            break
