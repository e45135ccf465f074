"""Two front doors on one Ray: a kept job of one is read, listed, cancelled and drawn on at the other."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import NamedTuple

import grpc
import psutil
import pytest

from sdgrpc.engine.cluster import head
from sdgrpc.v1 import diffusion_pb2 as pb
from sdgrpc.v1 import diffusion_pb2_grpc as pb_grpc
from sdgrpc.v1 import jobs_pb2, jobs_pb2_grpc
from tests.support.server import ServerProcess, running_server

pytestmark = pytest.mark.slow

SECONDS = 120
STEPS = 60
KINDS = ["accepted", "prepared", *["progress"] * STEPS, "image", "finished"]
PROGRAM = """
import sys, ray
context = ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
print(context.address_info["gcs_address"], flush=True)
sys.stdin.read()
"""


class Ray(NamedTuple):
    """A Ray, and the process that started it."""

    address: str
    process_id: int


@pytest.fixture(scope="module")
def ray() -> Iterator[Ray]:
    """One that no server started."""
    with pytest.MonkeyPatch.context() as patch:
        for variable, value in head.own_environment().items():
            patch.setenv(variable, value)
        command = [sys.executable, "-c", PROGRAM]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            yield Ray(process.stdout.readline().strip(), process.pid)
            process.stdin.close()


@pytest.fixture(scope="module")
def servers(ray: Ray, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ServerProcess, ...]]:
    """Two of one replica each, that draw each job by itself."""
    folder = tmp_path_factory.mktemp("doors")
    arguments = ("--cluster", ray.address, "--replicas", "1", "--replica-cpus", "1", "--no-batching")
    with (
        running_server(folder / "first.log", *arguments) as first,
        running_server(folder / "second.log", *arguments) as second,
    ):
        yield first, second


@pytest.fixture
def channels(servers: tuple[ServerProcess, ...]) -> Iterator[list[grpc.Channel]]:
    """A connection to each."""
    made = [grpc.insecure_channel(server.target) for server in servers]
    yield made
    for channel in made:
        channel.close()


def draw(channel: grpc.Channel, request_id: str, *, keeps: bool = True) -> Iterator[pb.JobEvent]:
    """Send a request of a seed."""
    request = pb.GenerateRequest(prompt="a red circle", width=64, height=64, request_id=request_id)
    request.sampling.steps, request.sampling.seed = STEPS, 5
    request.loras.add(name="sepia", strength=0.5)
    if keeps:
        request.on_disconnect = pb.ON_DISCONNECT_KEEP
    return pb_grpc.DiffusionServiceStub(channel).Generate(request, timeout=SECONDS)


def attach(channel: grpc.Channel, request_id: str, after: int = -1) -> Iterator[pb.JobEvent]:
    request = jobs_pb2.AttachJobRequest(request_id=request_id, after_sequence=after)
    return jobs_pb2_grpc.JobServiceStub(channel).AttachJob(request, timeout=SECONDS)


def jobs_of(channel: grpc.Channel) -> dict[str, int]:
    """The state of each job by its id; an id that is listed twice fails."""
    jobs = jobs_pb2_grpc.JobServiceStub(channel).ListJobs(jobs_pb2.ListJobsRequest(), timeout=30).jobs
    states = {job.request_id: int(job.state) for job in jobs}
    assert len(states) == len(jobs)
    return states


def until(true: Callable[[], bool]) -> None:
    """Wait for something that no event tells of."""
    end = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def until_state(channel: grpc.Channel, request_id: str, state: int) -> None:
    until(lambda: jobs_of(channel)[request_id] == state)


def kinds_of(events: list[pb.JobEvent]) -> list[str]:
    return [str(event.WhichOneof("event")) for event in events]


def written(events: Iterable[pb.JobEvent]) -> list[bytes]:
    return [event.SerializeToString(deterministic=True) for event in events]


def picture_of(events: list[pb.JobEvent]) -> bytes:
    return next(event.image.image.data for event in events if event.WhichOneof("event") == "image")


def test_a_job_is_read_at_the_other_door_while_it_is_drawn(channels: list[grpc.Channel]) -> None:
    """Event by event the same; the same request there is not drawn again; both list it once."""
    first = draw(channels[0], "shared")
    head_of_it = [next(first) for _ in range(4)]
    other, again = attach(channels[1], "shared"), draw(channels[1], "shared")
    assert next(other).WhichOneof("event") == "accepted"
    events = head_of_it + list(first)
    assert kinds_of(events) == KINDS
    assert written(other) == written(events[1:])
    assert written(again) == written(events)
    for channel in channels:
        until_state(channel, "shared", jobs_pb2.JOB_STATE_FINISHED)
        assert list(jobs_of(channel)) == ["shared"]


def test_a_job_is_cancelled_at_the_other_door(channels: list[grpc.Channel]) -> None:
    """Its reader is told by the name that it has at one door, without a word of Ray's."""
    first = draw(channels[0], "unwanted")
    assert next(first).WhichOneof("event") == "accepted"
    until(lambda: "unwanted" in jobs_of(channels[1]))
    jobs_pb2_grpc.JobServiceStub(channels[1]).CancelJob(jobs_pb2.CancelJobRequest(request_id="unwanted"))
    for call in (first, attach(channels[1], "unwanted")):
        with pytest.raises(grpc.RpcError) as caught:
            list(call)
        assert caught.value.code() is grpc.StatusCode.CANCELLED
        assert caught.value.details() == "the job was cancelled by CancelJob"
    for channel in channels:
        until_state(channel, "unwanted", jobs_pb2.JOB_STATE_CANCELLED)


def found(channel: grpc.Channel, request_id: str) -> bool:
    """Whether a door knows that a job has ended; what it does not know has one of two names."""
    try:
        return len(list(attach(channel, request_id))) == len(KINDS)
    except grpc.RpcError as error:
        if error.code() not in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNAVAILABLE):
            raise
        return False


def test_a_killed_registry_is_told_again(
    ray: Ray, servers: tuple[ServerProcess, ...], channels: list[grpc.Channel]
) -> None:
    """Kill -9 of it in the middle of a job disturbs none, and all is found once Ray has started another."""
    first = draw(channels[0], "told again")
    seen = [next(first) for _ in range(8)]
    family = psutil.Process(ray.process_id).children(recursive=True)
    (registry,) = (one for one in family if "ray::JobRegistry" in str(one.cmdline()))
    registry.kill()
    events = seen + list(first)
    assert kinds_of(events) == KINDS
    assert [event.sequence for event in events] == list(range(len(KINDS)))
    for request_id in ("told again", "shared"):
        until(partial(found, channels[1], request_id))
    assert written(attach(channels[1], "told again")) == written(events)
    assert "Traceback" not in "".join(server.log_text() for server in servers)


def test_a_job_of_a_killed_door_is_drawn_on(
    servers: tuple[ServerProcess, ...], channels: list[grpc.Channel]
) -> None:
    """Kill -9 in the middle of it: at the other door every event comes once, with the undisturbed picture."""
    undisturbed = list(draw(channels[1], "", keeps=False))
    first = draw(channels[0], "orphan")
    seen = [next(first) for _ in range(12)]
    reader = attach(channels[1], "orphan")
    servers[0].signal(signal.SIGKILL)
    servers[0].wait()
    events = list(reader)
    assert kinds_of(events) == KINDS
    assert [event.sequence for event in events] == list(range(len(KINDS)))
    assert picture_of(events) == picture_of(undisturbed)
    rest = list(attach(channels[1], "orphan", seen[-1].sequence))
    assert kinds_of(seen + rest) == KINDS
    assert jobs_of(channels[1])["shared"] == jobs_pb2.JOB_STATE_FINISHED
    assert len(list(attach(channels[1], "shared"))) == len(KINDS)
