"""What replicas on Ray cost and bring: `python -m benchmarks.cluster`.

Servers with the embedded model, each engine on one core: one that draws by itself, one with one replica, one
with two. Pictures are drawn in turn over gRPC, with progress on every step. Then two replicas in this process
serve a trace of calls with twelve LoRA sets of Zipf's popularity, routed in three ways.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from safetensors.numpy import load_file, save_file

from benchmarks.tables import alternate, results_path, write_json
from sdgrpc.client import Client, ImageReady, Lora, Progress
from sdgrpc.domain import LoraRef, Prepared
from sdgrpc.engine.cluster.engine import RayEngine
from sdgrpc.engine.cluster.fleet import Fleet
from sdgrpc.engine.cluster.jobs import Inside
from sdgrpc.engine.cluster.keeper import Keeper
from sdgrpc.engine.cluster.routing.holdings import Wanted
from sdgrpc.engine.cluster.routing.router import Choice, Router, Why
from sdgrpc.engine.cluster.scaling import Scaler, Scaling
from sdgrpc.engine.cluster.set_names import SetNames
from sdgrpc.engine.observing.observer import Observer
from sdgrpc.settings import Settings
from tests.support.assets import LORAS
from tests.support.server import running_server
from tests.support.tasks import task

PROMPT = "a red star on a blue background"
SEPIA = Lora("sepia", strength=0.5)
SETS, ALPHA, AT_ONCE = 12, 1.0, 4
ONE_REPLICA = ("--cluster", "local", "--replicas", "1", "--replica-cpus", "1")
TWO_REPLICAS = ("--cluster", "local", "--replicas", "2", "--replica-cpus", "1")


@contextmanager
def client_of(*arguments: str) -> Iterator[Client]:
    """A client of a server that runs for the block, on one core where it draws by itself."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        with (
            tempfile.TemporaryDirectory() as folder,
            running_server(Path(folder) / "log", *arguments) as server,
            Client(server.target) as client,
        ):
            yield client
    finally:
        os.environ.pop("OMP_NUM_THREADS")
        if before is not None:
            os.environ["OMP_NUM_THREADS"] = before


def cost(rounds: int, steps: int, side: int) -> dict[str, float]:
    """What a picture takes without and with Ray between the door and the engine, in seconds."""
    with client_of() as alone, client_of(*ONE_REPLICA) as replica:
        options: dict[str, Any] = {"seed": 1, "steps": steps, "width": side, "height": side, "loras": [SEPIA]}
        times = alternate(
            {
                "alone": lambda: alone.generate(PROMPT, **options).result(),
                "replica": lambda: replica.generate(PROMPT, **options).result(),
            },
            rounds,
        )
    middle = {name: statistics.median(each) for name, each in times.items()}
    differences = [replica - one for one, replica in zip(times["alone"], times["replica"], strict=True)]
    added, events = statistics.median(differences), steps + 4
    quarters = dict(
        zip(
            ("added_lower_quarter", "added", "added_upper_quarter"),
            statistics.quantiles(differences),
            strict=True,
        )
    )
    return {**middle, **quarters, "added_share": added / middle["alone"], "added_per_event": added / events}


def throughput(client: Client, pictures: int, steps: int, side: int) -> float:
    """Pictures a minute of eight clients at once, in whose calls nothing is shared."""

    def draw(seed: int) -> None:
        client.generate(PROMPT, seed=seed, steps=steps, width=side, height=side, loras=[SEPIA]).result()

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(draw, range(4)))  # the set is fused, on one replica or on both
        began = time.monotonic()
        list(threads.map(draw, range(pictures)))
        return 60 * pictures / (time.monotonic() - began)


def memory(client: Client) -> float:
    """What a replica's process holds alone, in MiB; the mean."""
    processes = [one.process_id for one in next(client.watch_status()).replicas]
    return statistics.mean(psutil.Process(one).memory_full_info().uss for one in processes) / 2**20


def set_bytes(client: Client) -> int:
    """What a fused set takes; the sets that are there are alike."""
    return max(one.size_bytes for one in next(client.watch_status()).lora_sets)


def failover(client: Client, rounds: int, steps: int, side: int) -> dict[str, float]:
    """How much later a picture comes whose replica is killed in the middle, in seconds."""

    def drawn(victim: Callable[[], int] | None = None) -> float:
        began = time.monotonic()
        for event in client.generate(PROMPT, seed=1, steps=steps, width=side, height=side, loras=[SEPIA]):
            if victim is not None and isinstance(event, Progress) and event.step == steps // 2:
                os.kill(victim(), signal.SIGKILL)
            if isinstance(event, ImageReady):
                return time.monotonic() - began
        raise RuntimeError("no picture came")

    def busiest() -> int:
        replicas = next(client.watch_status()).replicas
        return max(replicas, key=lambda one: one.running).process_id

    late = []
    for _ in range(rounds):
        while any(one.state != "ready" for one in next(client.watch_status()).replicas):
            time.sleep(0.2)
        drawn()
        late.append(drawn(busiest) - drawn())
    return {"median": statistics.median(late), "longest": max(late)}


class RoundRobin(Router):
    """One replica after the other."""

    turn = 0

    def choose(self, wanted: Wanted, *, without: Sequence[str] = ()) -> Choice | None:  # type: ignore[override]
        """See `Router.choose`."""
        del wanted
        names = [name for name in self.loads if name not in without]
        self.turn += 1
        return Choice(names[self.turn % len(names)], Why.LOAD) if names else None


class Random(Router):
    """Any replica."""

    dice = random.Random(1)

    def choose(self, wanted: Wanted, *, without: Sequence[str] = ()) -> Choice | None:  # type: ignore[override]
        """See `Router.choose`."""
        del wanted
        names = [name for name in self.loads if name not in without]
        return Choice(self.dice.choice(names), Why.LOAD) if names else None


def hits(router: Router, calls: int, held_bytes: int) -> float:
    """Return which share of calls finds its set fused, with two replicas that hold so many bytes each."""
    with tempfile.TemporaryDirectory() as folder:
        for number in range(SETS):
            tensors = {
                key: value * (1 - number / 100)
                for key, value in load_file(LORAS / "sepia.safetensors").items()
            }
            save_file(tensors, Path(folder) / f"{number}.safetensors")
        settings = Settings(
            cluster="local",
            replicas="2",
            replica_cpus=1,
            lora_cache_bytes=held_bytes,
            lora_dir=(Path(folder),),
        )
        fleet, sets = Fleet(settings, "local"), SetNames()
        keeper = Keeper(fleet, router, sets, 60.0)
        keeper.begin(2)
        served = asyncio.run(keeper.opened())
        scaling = Scaling(keeper, Scaler(2, 2))
        engine = RayEngine(fleet, router, keeper, scaling, sets, served, Observer(), Inside())
        return asyncio.run(_hits(engine, calls))


async def _hits(engine: RayEngine, calls: int) -> float:
    """Draw, some at a time, and count the sets that were there."""
    following = asyncio.ensure_future(engine.failed())
    places, dice, found = asyncio.Semaphore(AT_ONCE), random.Random(2), list[bool]()
    weights = [1 / (rank + 1) ** ALPHA for rank in range(SETS)]

    async def draw(name: str) -> None:
        async with places:
            job = task(model="embedded", steps=1, loras=(LoraRef(0.5, name=name),), width=64, height=64)
            async for event in engine.submit(job):
                if isinstance(event, Prepared):
                    found.append(event.lora_set_cached)

    await asyncio.gather(*(draw(str(number)) for number in dice.choices(range(SETS), weights, k=calls)))
    following.cancel()
    await engine.close()
    return sum(found) / len(found)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a table and write it to a JSON file."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cluster", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="pictures of each kind; medians are told")
    parser.add_argument("--steps", type=int, default=20, help="of a picture")
    parser.add_argument("--side", type=int, default=256, help="of a picture, in pixels")
    parser.add_argument("--calls", type=int, default=240, help="of the trace with twelve sets")
    parser.add_argument(
        "--json", type=Path, default=results_path("cluster"), help="where to write the numbers"
    )
    options = parser.parse_args(arguments)
    found: dict[str, Any] = {"options": {"steps": options.steps, "side": options.side}}
    found["cost"] = cost(options.rounds, options.steps, options.side)
    pictures = 4 * options.rounds
    with client_of(*ONE_REPLICA, "--no-batching") as one, client_of(*TWO_REPLICAS, "--no-batching") as two:
        rates = [throughput(client, pictures, options.steps, options.side) for client in (one, two, one, two)]
        found["pictures_a_minute"] = {"one": max(rates[::2]), "two": max(rates[1::2])}
        found["replica_mib"] = memory(two)
        half = SETS // 2 * set_bytes(two)
        found["failover_seconds"] = failover(two, options.rounds, options.steps, options.side)
    routers = {"affinity": Router(), "random": Random(), "round robin": RoundRobin()}
    found["hits"] = {name: hits(router, options.calls, half) for name, router in routers.items()}
    for name, value in found.items():
        print(f"{name}: {value}")
    write_json(options.json, found)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
