"""What no engine goes on after: the server says so, ends every job, and ends with status 70."""

from __future__ import annotations

from collections.abc import Callable

import grpc
import pytest

from sdgrpc.v1 import catalog_pb2 as cat
from sdgrpc.v1 import diffusion_pb2 as pb
from tests.faults.conftest import NOT_SERVING, SERVING, FaultyServer, failure, reason_of, started_faulty
from tests.support.api import generate

STUCK = 70
SEPIA = pb.Lora(name="sepia", strength=0.7)
PREVIEWED = generate(
    sampling=pb.Sampling(steps=30), output=pb.Output(preview=pb.PreviewOptions(kind=pb.PREVIEW_KIND_PICTURE))
)


def draw(server: FaultyServer) -> None:
    list(server.stub.Generate(generate()))


def draw_with_previews(server: FaultyServer) -> None:
    list(server.stub.Generate(PREVIEWED))


def draw_with_lora(server: FaultyServer) -> None:
    list(server.stub.Generate(generate(loras=[SEPIA])))


def list_loras(server: FaultyServer) -> None:
    server.catalog.ListLoras(cat.ListLorasRequest())


def describe(server: FaultyServer) -> None:
    server.catalog.GetLora(cat.GetLoraRequest(name="sepia"))


def fuse(server: FaultyServer) -> None:
    server.catalog.PrepareLoras(cat.PrepareLorasRequest(loras=[SEPIA]))


def draw_with_the_other(server: FaultyServer) -> None:
    list(server.stub.Generate(generate(model="two")))


# Every thread of the engine, by a call that reaches it: preparing, step and finishing, previews and indexes,
# the catalog's readers and fuser, the loader.
DEATHS = [
    ("predict", "cuda", draw),
    ("predict", "die", draw),
    ("prepare", "ecc", draw),
    ("encode", "die", draw),
    ("decode", "assert", draw),
    ("decode", "die", draw),
    ("write", "die", draw),
    ("acquire", "launch", draw),
    ("choose", "bug", draw),
    ("find", "die", draw_with_lora),
    ("preview", "die", draw_with_previews),
    ("list", "die", list_loras),
    ("describe", "cuda", describe),
    ("acquire", "die", fuse),
    ("load", "die", draw_with_the_other),
]
HANGS = [
    ("predict", draw),
    ("encode", draw),
    ("decode", draw),
    ("acquire", fuse),
    ("list", list_loras),
]


def check_end(server: FaultyServer, where: str, what: str, work: Callable[[FaultyServer], None]) -> None:
    """Both the call that meets the fault and a bystander end with UNAVAILABLE (ENGINE_FAILED)."""
    states = server.health()
    assert next(states) == SERVING
    server.order(where, what)
    with pytest.raises(grpc.RpcError) as caught:
        work(server)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert reason_of(caught.value) == "ENGINE_FAILED"
    assert next(states) == NOT_SERVING
    assert server.wait() == STUCK
    (line,) = server.fatal_lines()
    for thread in ("MainThread", "sdgrpc-prepare", "sdgrpc-step", "sdgrpc-watch"):
        assert f"{thread}: " in line
    assert "Traceback" not in server.log_text()


@pytest.mark.parametrize(("where", "what", "work"), DEATHS)
def test_a_lost_device_or_a_dead_thread_ends_the_server(open_faulty, where, what, work) -> None:
    """At once, whichever thread it is."""
    with open_faulty("--model", "one=embedded", "--model", "two=embedded") as server:
        check_end(server, where, what, work)


@pytest.mark.parametrize(("where", "work"), HANGS)
def test_a_call_that_hangs_ends_the_server(open_faulty, where, work) -> None:
    """After `hang_timeout`."""
    with open_faulty("--hang-timeout", "1.5") as server:
        check_end(server, where, "hang", work)
        assert " has not returned for " in server.fatal_lines()[0]


def test_jobs_in_flight_end_too(open_faulty) -> None:
    """Those that step, that wait for a place, and that come after."""
    with open_faulty("--max-running-jobs", "2", "--hang-timeout", "60") as server:
        jobs = [server.stub.Generate(generate(sampling=pb.Sampling(steps=150))) for _ in range(6)]
        for job in jobs:
            assert next(job).HasField("accepted")
        server.order("predict", "cuda")
        errors = [failure(job) for job in jobs]
        assert {reason_of(error) for error in errors} == {"ENGINE_FAILED"}
        late = failure(server.stub.Generate(generate()))
        assert late.code() is grpc.StatusCode.UNAVAILABLE
        assert server.wait() == STUCK


@pytest.mark.parametrize("what", ["cuda", "die", "hang"])
def test_a_fault_before_the_server_is_ready(tmp_path, what) -> None:
    """Nobody can be told; the process ends with the same status instead of loading for ever."""
    (tmp_path / "control").write_text(f"predict {what}")
    with started_faulty(tmp_path, "--hang-timeout", "1.5") as process:
        assert process.wait(120) == STUCK
        assert process.stdout.read() == ""
    assert "the engine cannot go on" in (tmp_path / "log").read_text()
