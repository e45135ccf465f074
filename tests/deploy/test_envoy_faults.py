"""Servers that die or leave behind Envoy: no client sees it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from sdgrpc.client import AsyncClient, Client, Progress
from sdgrpc.testing import draw_script, scripted_server
from tests.clients.conftest import CARGO_TARGET, install_typescript, require_client
from tests.support.envoy import Envoy, program, running_envoy
from tests.support.server import ServerProcess, environment, started_server, target_of

ROOT = Path(__file__).resolve().parents[2]
LORA = {"loras": ["postcard:0.5"]}
OPTIONS = {**LORA, "steps": 24, "seed": 7}
LORAS = ["postcard:0.75", "sepia:0.5"]
NAMES = ("one", "two")


def draw(target: str, _: Path) -> int:
    """With the Python client."""
    with Client(target) as client:
        return len([event for event in client.generate("a", loras=LORAS) if isinstance(event, Progress)])


def draw_async(target: str, _: Path) -> int:
    """With that for asyncio."""

    async def run() -> int:
        async with AsyncClient(target) as client:
            job = client.generate("a", loras=LORAS)
            return len([event async for event in job if isinstance(event, Progress)])

    return asyncio.run(run())


def draw_by(command: Sequence[str], where: str, *arguments: str) -> int:
    """With the program that a client has for an example; the steps that it tells."""
    done = subprocess.run(
        [*command, *arguments],
        cwd=ROOT / "clients" / where,
        env={"CARGO_TARGET_DIR": CARGO_TARGET, **environment()},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return sum(line.startswith("step ") for line in done.stdout.splitlines())


def draw_go(target: str, folder: Path) -> int:
    """With the Go client."""
    require_client("go")
    subprocess.run(
        ["go", "build", "-o", folder / "draw", "./examples/draw"], cwd=ROOT / "clients/go", check=True
    )
    return draw_by([str(folder / "draw")], "go", "-server", target, "-output", str(folder / "go"))


def draw_typescript(target: str, folder: Path) -> int:
    """With the TypeScript client, over gRPC-Web."""
    require_client("typescript")
    install_typescript()
    return draw_by(["node", "dist/examples/draw.js"], "typescript", f"http://{target}", str(folder / "ts"))


def draw_rust(target: str, folder: Path) -> int:
    """With the Rust client; compiling it takes minutes."""
    if os.environ.get("SDGRPC_REQUIRE_ALL") != "1":
        pytest.skip("compiles for minutes: SDGRPC_REQUIRE_ALL=1 runs it")
    require_client("rust")
    command = ["cargo", "run", "--locked", "--all-features", "--quiet", "--example", "draw", "--"]
    return draw_by(command, "rust", target, str(folder / "rust"))


DRAWS = [draw, draw_async, draw_go, draw_typescript, draw_rust]


@pytest.mark.timeout(1500)
@pytest.mark.parametrize("draws", DRAWS, ids=lambda draws: draws.__name__)
def test_a_death_in_mid_job_is_not_seen(draws: Callable[[str, Path], int], tmp_path: Path) -> None:
    """Envoy ends the calls of a killed server; each client goes on at the next, and no step comes twice."""
    program()
    with ExitStack() as held:
        healthy = held.enter_context(scripted_server(draw_script(3)))
        dying = held.enter_context(
            subprocess.Popen(
                [sys.executable, "-m", "tests.support.dying"], cwd=ROOT, stdout=subprocess.PIPE, text=True
            )
        )
        held.callback(dying.kill)
        target = dying.stdout.readline().strip()
        envoy = held.enter_context(running_envoy(tmp_path, [target, healthy.target], healthy=[target]))
        pool = held.enter_context(ThreadPoolExecutor())
        drawing = pool.submit(draws, envoy.target, tmp_path)
        drawing.add_done_callback(lambda _: dying.kill())  # where it fails before it has begun
        begun = dying.stdout.readline()
        if begun:
            healthy.serve()
            envoy.until_healthy([target, healthy.target])
            dying.kill()
        assert drawing.result(60) == 3
        (request,) = healthy.requests
        assert request.sampling.HasField("seed")
        assert request.request_id


@contextmanager
def pair(folder: Path, *arguments: str) -> Iterator[tuple[list[ServerProcess], Envoy]]:
    """Two servers with the embedded model behind Envoy."""
    program()
    with ExitStack() as held:
        starts = [held.enter_context(started_server(folder / name, *arguments)) for name in NAMES]
        servers = [  # they start side by side
            ServerProcess(target_of(start, folder / name), start, folder / name)
            for name, start in zip(NAMES, starts, strict=True)
        ]
        place = folder / "envoy"
        place.mkdir()
        yield servers, held.enter_context(running_envoy(place, [server.target for server in servers]))


def state_of(server: ServerProcess) -> tuple[int, int, int]:
    """Jobs that run, wait and are finished, as the server itself tells."""
    with Client(server.target) as client:
        status = next(iter(client.watch_status()))
        return status.running, status.queued, status.jobs_finished


def where_it_runs(servers: Sequence[ServerProcess]) -> ServerProcess:
    (busy,) = (server for server in servers if state_of(server)[0])
    return busy


class Drawing:
    """A job in a thread, and when it is in its middle."""

    def __init__(self, target: str) -> None:
        self.reached = threading.Event()
        self._pool = ThreadPoolExecutor(1)
        self._result = self._pool.submit(self._draw, target)

    def _draw(self, target: str) -> tuple[list[int], bytes]:
        steps = []
        with Client(target) as client:
            job = client.generate("a red star", width=256, height=256, **OPTIONS)
            for event in job:
                if isinstance(event, Progress):
                    steps.append(event.step)
                    self.reached.set()
            (image,) = job.images()
        return steps, image.image.data

    def result(self) -> tuple[list[int], bytes]:
        with self._pool:
            return self._result.result(120)


def check_sets(envoy: Envoy) -> None:
    """What one caller has prepared another finds fused."""
    for name in ("postcard", "sepia", "flower", "night"):
        with Client(envoy.target) as client:
            client.wait_until_ready()
            assert not client.prepare_loras([f"{name}:0.25"]).lora_set_cached
        with Client(envoy.target) as client:
            result = client.generate("a", loras=[f"{name}:0.25"], steps=1).result()
        assert result.prepared.lora_set_cached


def check_kept(servers: Sequence[ServerProcess], envoy: Envoy) -> None:
    """Kept jobs are found by their id alone, and cancelled by it; each server has some."""
    options = {"steps": 2, "on_disconnect": "keep", **LORA}
    ids = [f"kept {number}" for number in range(8)]
    with Client(envoy.target) as client:
        for seed, request_id in enumerate(ids):
            client.generate("a", seed=seed, request_id=request_id, **options).detach()
    with Client(envoy.target) as client:
        assert [client.attach(each).images()[0].seed for each in ids] == list(range(8))
        assert [client.cancel_job(each).request_id for each in ids] == ids
    for server in servers:
        with Client(server.target) as client:
            assert client.list_jobs()


def check_cancel(servers: Sequence[ServerProcess], client: Client) -> None:
    """A cancel frees the engine."""
    job = client.generate("a red star", width=256, height=256, **{**OPTIONS, "steps": 150})
    next(event for event in job if isinstance(event, Progress))
    busy = where_it_runs(servers)
    finished = state_of(busy)[2]
    job.cancel()
    with Client(busy.target) as direct:
        for status in direct.watch_status(min_interval=0.1):
            if (status.running, status.queued) == (0, 0):
                break
    assert status.jobs_finished == finished


def test_the_real_thing(tmp_path: Path) -> None:
    """Sets and kept jobs are found again, a cancel frees the engine, and a drain loses nothing."""
    with pair(tmp_path, "--no-batching") as (servers, envoy), Client(envoy.target) as client:
        check_sets(envoy)
        check_kept(servers, envoy)
        check_cancel(servers, client)
        undisturbed = client.generate("a red star", width=256, height=256, **OPTIONS).images()

        drawing = Drawing(envoy.target)
        assert drawing.reached.wait(60)
        busy = where_it_runs(servers)
        busy.signal(signal.SIGTERM)
        for prompt in "abcdefgh":  # the leaving server may be asked, and refuses
            client.generate(prompt, **{**OPTIONS, "steps": 1}).images()
        steps, data = drawing.result()
        assert steps == list(range(1, 25))
        assert data == undisturbed[0].image.data
        assert busy.wait() == 0


def test_a_real_servers_death(tmp_path: Path) -> None:
    """Killed in mid-job: the other draws it again, and its bytes are those of an undisturbed job."""
    with pair(tmp_path, "--no-batching") as (servers, envoy):
        drawing = Drawing(envoy.target)
        assert drawing.reached.wait(60)
        busy = where_it_runs(servers)
        busy.signal(signal.SIGKILL)
        steps, data = drawing.result()
        assert steps == list(range(1, 25))
        (left,) = (server for server in servers if server is not busy)
        assert state_of(left)[2] == 1
        with Client(left.target) as client:
            (image,) = client.generate("a red star", width=256, height=256, **OPTIONS).images()
        assert data == image.image.data
