"""The real endpoint picker with the chart's configuration, before real servers and scripted ones."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest

from sdgrpc.client import Client, InvalidRequestError, Progress
from sdgrpc.testing import draw_script, hang_script, invalid_script, scripted_server
from sdgrpc.v1 import diffusion_pb2 as pb
from sdgrpc.v1 import diffusion_pb2_grpc as pb_grpc
from tests.deploy.test_helm import VARIANTS, Objects, program, rendered
from tests.support.envoy import until
from tests.support.picker import Gateway, free_ports, gateway
from tests.support.server import ServerProcess, running_server
from tools import go_programs

__all__ = ["program"]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]  # the first run builds the picker

Servers = tuple[list[ServerProcess], tuple[int, int]]
ADDRESSES = ("127.0.0.2", "127.0.0.3")
"""Pods have one port in common and addresses of their own."""
NAMES_A_SET = "x-gateway-model-name-rewrite"
SETS = ("postcard:0.5", "sepia:0.5")


@pytest.fixture(scope="module")
def chart(program: Path) -> Objects:
    """What the chart makes for an inference gateway."""
    if shutil.which("go") is None and not go_programs.PICKER.exists():
        if os.environ.get("SDGRPC_REQUIRE_ALL") == "1":
            pytest.fail("SDGRPC_REQUIRE_ALL=1 needs Go, to build the picker")
        pytest.skip("the picker is built with Go, and there is no `go` on the PATH")
    return rendered(program, VARIANTS["inference"])


@pytest.fixture(scope="module")
def servers(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Servers]:
    """Two servers that draw one job at a time, and their ports."""
    folder = tmp_path_factory.mktemp("servers")
    ports = free_ports(2)
    with ExitStack() as held:
        yield (
            [
                held.enter_context(
                    running_server(
                        folder / address,
                        *("--listen", f"{address}:{ports[0]}", "--metrics", f"{address}:{ports[1]}"),
                        *("--max-running-jobs", "1"),
                    )
                )
                for address in ADDRESSES
            ],
            (ports[0], ports[1]),
        )


def finished(server: ServerProcess) -> int:
    """Jobs that a server has drawn."""
    with Client(server.target) as client:
        return next(iter(client.watch_status())).jobs_finished


def draw(target: str, name: str, **fields: Any) -> list[pb.JobEvent]:
    """A job through the gateway that names its set, as no client of ours does."""
    request = pb.GenerateRequest(prompt="a", sampling=pb.Sampling(steps=1), **fields)
    with grpc.insecure_channel(target) as channel:
        stub, named = pb_grpc.DiffusionServiceStub(channel), [(NAMES_A_SET, name)]
        return list(stub.Generate(request, metadata=named, timeout=60))


def prepare(server: ServerProcess, name: str) -> str:
    """Have a server fuse a set; its id."""
    with Client(server.target) as client:
        return client.prepare_loras([name]).lora_set_id


def lora_of(text: str) -> pb.Lora:
    name, _, strength = text.partition(":")
    return pb.Lora(name=name, strength=float(strength))


def has(front: Gateway, number: int, name: str) -> bool:
    """Whether the picker knows that a server has a set."""
    return name in front.known(number).active


def test_jobs_go_where_their_set_is(
    chart: Objects,
    servers: Servers,
    tmp_path: Path,
) -> None:
    """Four jobs of each of two sets, each of which one server has; the picker knows it from the gauge."""
    held, ports = servers
    ids = [prepare(server, name) for server, name in zip(held, SETS, strict=True)]
    with gateway(tmp_path, chart, ADDRESSES, ports) as front:
        for number, name in enumerate(ids):
            until(partial(has, front, number, name))
        for server, name, lora in zip(held, ids, SETS, strict=True):
            before = [finished(one) for one in held]
            for _ in range(4):
                front.read_anew()  # else a job that has just ended counts as one that runs
                *_, last = draw(front.envoy.target, name, loras=[lora_of(lora)])
                assert last.WhichOneof("event") == "finished"
            drawn = [finished(one) - then for one, then in zip(held, before, strict=True)]
            assert drawn == [4 if one is server else 0 for one in held]


def test_the_picker_reads_what_runs_and_waits(
    chart: Objects,
    servers: Servers,
    tmp_path: Path,
) -> None:
    """A job that runs, one that waits, and its set; calls that name none go to the server without."""
    (busy, idle), ports = servers
    with (
        gateway(tmp_path, chart, ADDRESSES, ports) as front,
        Client(busy.target) as client,
        Client(busy.target) as second,
    ):
        running = client.generate("a", loras=["flower:0.5"], steps=150, width=512, height=512)
        assert next(event for event in running if isinstance(event, Progress))
        waiting = second.generate("a", loras=["night:0.5"], steps=1)
        next(iter(waiting))  # accepted
        until(lambda: front.known(0).waiting_jobs == 1)
        with Client(busy.target) as third:
            status = next(iter(third.watch_status()))
        known = front.known(0)
        assert known.running_jobs == 1
        assert known.active == {one.lora_set_id for one in status.lora_sets}
        assert len(known.waiting) == 1
        assert known.room > 1
        before = finished(idle)
        for _ in range(4):
            front.read_anew()
            draw(front.envoy.target, "")
        assert finished(idle) - before == 4
        running.cancel()
        waiting.cancel()


@pytest.mark.parametrize("tells", [True, False], ids=["told of answers", "not told"])
def test_events_on_their_way(chart: Objects, tmp_path: Path, tells: bool) -> None:
    """What a gateway sends the picker comes back at the end; else each event passes at once."""
    arrived, seen = threading.Event(), []

    def waiting(request, context):
        events = draw_script(3)(request, context)
        yield next(events)
        seen.append(arrived.wait(3))
        yield from events

    with scripted_server(waiting) as server:
        host, _, port = server.target.rpartition(":")
        with (
            gateway(tmp_path, chart, [host], (int(port), int(port)), tells=tells) as front,
            Client(front.envoy.target, resume_seconds=0) as client,
        ):
            kinds = []
            for event in client.generate("a"):
                arrived.set()
                kinds.append(type(event).__name__)
    assert kinds == ["Accepted", "Prepared", *["Progress"] * 3, "DrawnImage", "Finished"]
    assert seen == [not tells]


def test_what_else_passes(chart: Objects, tmp_path: Path) -> None:
    """A refusal with what is wrong with which field, and a cancel."""
    started = threading.Event()

    def script(request, context):
        yield from (hang_script(started) if request.prompt else invalid_script())(request, context)

    with scripted_server(script) as server:
        host, _, port = server.target.rpartition(":")
        with (
            gateway(tmp_path, chart, [host], (int(port), int(port))) as front,
            Client(front.envoy.target, resume_seconds=0) as client,
        ):
            with pytest.raises(InvalidRequestError) as caught:
                client.generate("").images()
            assert [each.field for each in caught.value.violations] == ["sampling.steps", "loras[1].strength"]
            job = client.generate("a")
            assert started.wait(30)
            job.cancel()
            assert server.cancelled.wait(30)
