"""Two replicas behind one door: what a client sees, and what it does not see."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from safetensors.numpy import load_file, save_file

from sdgrpc.client import Client, Lora
from sdgrpc.engine.cluster import head
from sdgrpc.v1 import catalog_pb2, catalog_pb2_grpc
from sdgrpc.v1 import diffusion_pb2 as pb
from sdgrpc.v1 import diffusion_pb2_grpc as pb_grpc
from tests.support.assets import LORAS
from tests.support.otlp import receiving
from tests.support.server import ServerProcess, running_server

GRAMMAR = ["accepted", "prepared", *["progress"] * 6, "image", "finished"]
STAGES = ("queue", "fuse", "encode", "denoise", "decode", "unet")
SECONDS = 120


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server of two replicas that draw each job by itself."""
    folder = tmp_path_factory.mktemp("cluster")
    arguments = ("--cluster", "local", "--replicas", "2", "--no-batching", "--cluster-control")
    with running_server(folder / "server.log", *arguments, "--upload-dir", str(folder / "up")) as running:
        yield running


@pytest.fixture(scope="module")
def channel(cluster: ServerProcess) -> Iterator[grpc.Channel]:
    """A connection to it."""
    with grpc.insecure_channel(cluster.target) as channel:
        yield channel


def request_of(steps: int = 6, count: int = 1) -> pb.GenerateRequest:
    request = pb.GenerateRequest(prompt="a red circle", width=64, height=64)
    request.sampling.steps, request.sampling.seed = steps, 5
    request.sampling.image_count = count
    request.loras.add(name="sepia", strength=0.5)
    return request


def replicas_of(channel: grpc.Channel) -> list[int]:
    """The processes of the replicas that take jobs."""
    ready = catalog_pb2.REPLICA_STATE_READY
    return [one.process_id for one in status_of(channel).replicas if one.state == ready]


def status_of(channel: grpc.Channel) -> catalog_pb2.WatchStatusResponse:
    """The first report."""
    watching = catalog_pb2_grpc.CatalogServiceStub(channel).WatchStatus(
        catalog_pb2.WatchStatusRequest(), timeout=60
    )
    try:
        return next(watching)
    finally:
        watching.cancel()


def drawn(channel: grpc.Channel, at: str = "", do: Callable[[], None] = lambda: None) -> list[pb.JobEvent]:
    """Draw; do something at the first event of a kind."""
    seen: list[pb.JobEvent] = []
    for event in pb_grpc.DiffusionServiceStub(channel).Generate(request_of(), timeout=SECONDS):
        seen.append(event)
        if at and event.WhichOneof("event") == at:
            at = ""
            do()
    return seen


def kinds_of(events: list[pb.JobEvent]) -> list[str]:
    return [str(event.WhichOneof("event")) for event in events]


def picture_of(events: list[pb.JobEvent]) -> bytes:
    return next(event.image.image.data for event in events if event.WhichOneof("event") == "image")


def until(true: Callable[[], bool], seconds: float = SECONDS) -> None:
    """Wait for something that no event tells of."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_picture_comes_with_every_event(channel: grpc.Channel) -> None:
    """The grammar is that of one process, and so are the picture's bytes, wherever it was drawn."""
    events = drawn(channel)
    assert kinds_of(events) == GRAMMAR
    assert [event.sequence for event in events] == list(range(len(events)))


def test_only_this_machine_is_listened_to(cluster: ServerProcess) -> None:
    """Ray's processes included, however many they are."""
    marks = ("ray::", "gcs_server", "raylet")
    family = [
        one.pid
        for one in psutil.process_iter(["cmdline"])
        if one.pid == cluster.process.pid or any(mark in str(one.info["cmdline"]) for mark in marks)
    ]
    assert len(family) > 4
    addresses = {
        one.laddr.ip
        for one in psutil.net_connections("tcp")
        if one.status == psutil.CONN_LISTEN and one.pid in family
    }
    assert addresses <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


def test_a_failure_keeps_its_name(channel: grpc.Channel) -> None:
    """And no traceback comes with it."""
    request = request_of()
    request.loras[0].name = "nowhere"
    with pytest.raises(grpc.RpcError) as caught:
        list(pb_grpc.DiffusionServiceStub(channel).Generate(request, timeout=60))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert "nowhere" in caught.value.details()
    assert "Traceback" not in caught.value.details()


def test_a_cancelled_job_ends(channel: grpc.Channel) -> None:
    """Neither replica draws any more, though most steps were left."""
    call = pb_grpc.DiffusionServiceStub(channel).Generate(request_of(150, 8), timeout=SECONDS)
    assert "progress" in {next(call).WhichOneof("event") for _ in range(3)}
    call.cancel()
    until(lambda: status_of(channel).running == 0)


def test_a_deadline_ends_a_job(channel: grpc.Channel) -> None:
    """With the code that one process has for it."""
    with pytest.raises(grpc.RpcError) as caught:
        list(pb_grpc.DiffusionServiceStub(channel).Generate(request_of(150, 8), timeout=0.5))
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    until(lambda: status_of(channel).running == 0)


def test_a_slow_reader_holds_no_engine(channel: grpc.Channel) -> None:
    """All steps are done though nobody reads; the pictures wait in the replica, not on the way."""
    request = request_of(20)
    request.output.preview.kind = pb.PREVIEW_KIND_PICTURE
    call = pb_grpc.DiffusionServiceStub(channel).Generate(request, timeout=SECONDS)
    before = status_of(channel).jobs_finished
    assert next(call).WhichOneof("event") == "accepted"
    until(lambda: status_of(channel).jobs_finished > before)
    events = list(call)
    assert kinds_of(events) == ["prepared", *["progress"] * 20, "image", "finished"]


def kill_one(channel: grpc.Channel, which: int) -> None:
    """End a replica as the system does where memory is short."""
    until(lambda: len(replicas_of(channel)) == 2)
    os.kill(replicas_of(channel)[which], signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("kind", ["accepted", "prepared", "progress", "image"])
def test_nobody_sees_a_death(channel: grpc.Channel, kind: str, which: int) -> None:
    """Kill -9 of either replica at any event: the same events, the same bytes."""
    until(lambda: len(replicas_of(channel)) == 2)
    undisturbed = drawn(channel)
    events = drawn(channel, kind, lambda: kill_one(channel, which))
    assert kinds_of(events) == kinds_of(undisturbed) == GRAMMAR
    assert picture_of(events) == picture_of(undisturbed)


def test_a_set_is_one_by_name_and_by_hash(channel: grpc.Channel) -> None:
    """A job that names the files by their hashes goes where the set was fused for one that named them."""
    stub = pb_grpc.DiffusionServiceStub(channel)
    for strength in (0.125, 0.25, 0.375, 0.625, 0.75, 0.875):
        request = request_of(steps=1)
        request.loras[0].strength = strength
        named = list(stub.Generate(request, timeout=SECONDS))[1].prepared
        request.loras[0].sha256 = named.loras[0].sha256
        hashed = list(stub.Generate(request, timeout=SECONDS))[1].prepared
        assert hashed.lora_set_id == named.lora_set_id
        assert [named.lora_set_cached, hashed.lora_set_cached] == [False, True]


@pytest.mark.slow
def test_uploads_reach_every_replica(cluster: ServerProcess, channel: grpc.Channel, tmp_path: Path) -> None:
    """Each replica draws with the file; content that is there already is not sent again."""
    until(lambda: len(replicas_of(channel)) == 2)  # a later one gets it when a job wants it
    path = tmp_path / "mine.safetensors"
    tensors = load_file(LORAS / "sepia.safetensors")
    save_file(tensors, path, {"ss_output_name": "mine"})
    with Client(cluster.target) as client:
        assert not client.upload_lora(path, name="mine").existed
        assert client.upload_lora(path, name="mine").existed
        strengths = [0.1 * number for number in range(1, 5)]
        options: dict[str, Any] = {"width": 64, "height": 64, "steps": 20}
        jobs = [client.generate("a star", loras=[Lora("mine", strength=one)], **options) for one in strengths]
        assert all(job.result().images for job in jobs)
    kept = list((cluster.log.parent / "up").glob("replica-*/*.safetensors"))
    assert [one.read_bytes() for one in kept] == [path.read_bytes()] * 2


@pytest.mark.slow
def test_it_is_seen_into_as_one_engine(tmp_path: Path) -> None:
    """Metrics count what the replicas do, and one trace goes through the door and the replica."""
    with receiving() as receiver:
        arguments = ["--cluster", "local", "--replicas", "2", "--metrics", "127.0.0.1:0"]
        arguments += ["--traces", f"http://{receiver.address}"]
        log = tmp_path / "server.log"
        with running_server(log, *arguments) as server, grpc.insecure_channel(server.target) as channel:
            drawn(channel)
            address = re.search(r"metrics on (http://\S+/metrics)", log.read_text())
            with urllib.request.urlopen(address.group(1), timeout=30) as answer:  # noqa: S310
                text = answer.read().decode()
        receiver.until(*STAGES)
    assert 'sdgrpc_steps_total{model="embedded"} 6.0' in text
    assert 'sdgrpc_images_total{model="embedded"} 1.0' in text
    assert 'sdgrpc_step_seconds_count{model="embedded"} 6.0' in text
    (call,) = [span for span in receiver.spans if span.name.endswith("Generate")]
    assert len(receiver.one("denoise").events) == 6
    assert len(receiver.named("unet")) == 6
    assert {span.trace_id for span in receiver.spans if span.name in STAGES} == {call.trace_id}


@pytest.mark.slow
def test_one_is_drained_and_another_added(cluster: ServerProcess, channel: grpc.Channel) -> None:
    """The job that it had begun is finished there; the number goes down by one, and up when asked for."""
    until(lambda: len(replicas_of(channel)) == 2)
    with Client(cluster.target) as client:

        def leave() -> None:
            replicas = status_of(channel).replicas
            assert client.drain_replicas(max(replicas, key=lambda one: one.running).name)

        assert kinds_of(drawn(channel, "prepared", leave)) == GRAMMAR
        until(lambda: len(status_of(channel).replicas) == 1)
        assert client.scale_replicas(2) == 1
        until(lambda: len(replicas_of(channel)) == 2)


@pytest.mark.slow
def test_a_replica_that_stands_still_is_ended(tmp_path_factory: pytest.TempPathFactory) -> None:
    """One that is stopped answers nothing: its job is drawn elsewhere, and it comes back."""
    log = tmp_path_factory.mktemp("hang") / "server.log"
    arguments = ("--cluster", "local", "--replicas", "2", "--hang-timeout", "2")
    with running_server(log, *arguments) as server, grpc.insecure_channel(server.target) as channel:
        first, second = replicas_of(channel)
        drawn(channel, "prepared", lambda: os.kill(first, signal.SIGSTOP))
        until(lambda: first not in replicas_of(channel))
        until(lambda: len(replicas_of(channel)) == 2)
        assert second in replicas_of(channel)


@pytest.mark.slow
def test_two_nodes_are_joined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Ray that runs already: a replica on each of its nodes, which stays when the server ends."""
    program = """
import sys
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
cluster.add_node(num_cpus=1)
print(cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""
    command = [sys.executable, "-c", program]
    for variable, value in head.own_environment().items():
        monkeypatch.setenv(variable, value)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as ray:
        address = ray.stdout.readline().strip()
        arguments = ("--cluster", address, "--replicas", "2", "--no-batching")
        with (
            running_server(tmp_path / "log", *arguments) as server,
            grpc.insecure_channel(server.target) as channel,
        ):
            assert kinds_of(drawn(channel)) == GRAMMAR
            assert {one.node for one in status_of(channel).replicas} == {"127.0.0.1"}
        assert ray.poll() is None
        ray.stdin.close()
        assert ray.wait(SECONDS) == 0


@pytest.mark.slow
def test_nothing_is_left_of_a_door_that_dies(tmp_path: Path) -> None:
    """Kill -9 of the server ends its replicas and its Ray."""
    with running_server(tmp_path / "log", "--cluster", "local", "--replicas", "1") as server:
        with grpc.insecure_channel(server.target) as channel:
            (replica,) = replicas_of(channel)
        (door,) = (
            one for one in psutil.Process(server.process.pid).children() if "head" in str(one.cmdline())
        )
        server.signal(signal.SIGKILL)
        server.wait()
        until(lambda: not psutil.pid_exists(replica) and not psutil.pid_exists(door.pid))
