"""What the web door adds to a picture: `python -m benchmarks.web`.

A server with the embedded model and a door before it, each a process of its own. The same pictures are drawn
in turn over gRPC and over HTTP, one at a time, whole and as a stream with three partial pictures. What the
door adds to a step is counted in processor time of caller and door, which a busy machine hardly changes.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psutil
from openai import OpenAI

from benchmarks.tables import alternate, results_path, write_json
from sdgrpc.client import Client, PreviewKind, PreviewOptions
from tests.support.server import environment, running_server

PROMPT = "a red star on a blue background"
PARTIAL = 3
CPU_STEPS = 150
"""Of the one picture whose processor time is counted, at a grain of 10 ms."""


@contextmanager
def door(target: str) -> Iterator[tuple[str, psutil.Process]]:
    """Run `sdgrpc web` for the block: its address and its process."""
    command = [sys.executable, "-m", "sdgrpc", "web", "--server", target, "--listen", "127.0.0.1:0"]
    with subprocess.Popen(  # noqa: S603 - our own command
        command, stdout=subprocess.PIPE, text=True, env=environment()
    ) as process:
        try:
            assert process.stdout is not None  # noqa: S101 - for the type checker
            yield process.stdout.readline().split()[-1], psutil.Process(process.pid)
        finally:
            process.terminate()


def ways(client: Client, openai: OpenAI) -> dict[str, Callable[[int], object]]:
    """Each way to draw one picture of so many steps."""

    def streamed(steps: int) -> object:
        every = PreviewOptions(PreviewKind.PICTURE, every_n_steps=max(steps // (PARTIAL + 1), 1))
        return list(client.generate(PROMPT, seed=1, steps=steps, preview=every))

    def events(steps: int) -> object:
        body: dict[str, object] = {"seed": 1, "steps": steps}
        return list(
            openai.images.generate(prompt=PROMPT, stream=True, partial_images=PARTIAL, extra_body=body)
        )

    return {
        "whole, gRPC": lambda steps: client.generate(PROMPT, seed=1, steps=steps).result(),
        "whole, HTTP": lambda steps: openai.images.generate(
            prompt=PROMPT, extra_body={"seed": 1, "steps": steps}
        ),
        "stream, gRPC": streamed,
        "stream, HTTP": events,
    }


def measure(rounds: int, steps: int) -> list[dict[str, float | str]]:
    """Return what a picture and a step take without the door and what it adds."""
    with (
        tempfile.TemporaryDirectory() as folder,
        running_server(Path(folder) / "log") as server,
        Client(server.target) as client,
        door(server.target) as (address, process),
        OpenAI(base_url=f"{address}/v1", api_key="unused", max_retries=0) as openai,
    ):
        drawn = ways(client, openai)
        times = alternate({name: partial(draw, steps) for name, draw in drawn.items()}, rounds)
        spent = {name: _processor(partial(draw, CPU_STEPS), process) for name, draw in drawn.items()}
    return [_added(times, spent, kind, steps) for kind in ("whole", "stream")]


def _processor(draw: Callable[[], object], process: psutil.Process) -> float:
    """Return the processor seconds of this process and the door's for a step."""

    def used() -> float:
        times = process.cpu_times()
        return float(times.user + times.system) + time.process_time()

    before = used()
    draw()
    return (used() - before) / CPU_STEPS


def _added(
    times: dict[str, list[float]], spent: dict[str, float], kind: str, steps: int
) -> dict[str, float | str]:
    """Return the door's share: the median over the rounds of the difference within a round."""
    direct, over = (times[f"{kind}, {way}"] for way in ("gRPC", "HTTP"))
    return {
        "kind": kind,
        "picture_ms": statistics.median(direct) * 1000,
        "door_ms": statistics.median(two - one for one, two in zip(direct, over, strict=True)) * 1000,
        "step_ms": statistics.median(direct) / steps * 1000,
        "door_step_ms": (spent[f"{kind}, HTTP"] - spent[f"{kind}, gRPC"]) * 1000,
    }


def table(added: list[dict[str, Any]], steps: int) -> str:
    """Lay the shares out as a table."""
    rows = [
        f"| | a picture of {steps} steps | the door adds | a step | the door adds, processor time | |",
        "|---|---|---|---|---|---|",
    ]
    rows += [
        f"| {one['kind']} | {one['picture_ms']:.1f} ms | {one['door_ms']:.1f} ms | {one['step_ms']:.1f} ms "
        f"| {one['door_step_ms']:.2f} ms | {one['door_step_ms'] / one['step_ms']:.1%} |"
        for one in added
    ]
    return "\n".join(rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table and write the numbers."""
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("--rounds", type=int, default=31)
    made.add_argument("--steps", type=int, default=4, help="of a picture that is timed")
    made.add_argument("--json", type=Path, default=results_path("web"))
    options = made.parse_args(arguments)
    added = measure(options.rounds, options.steps)
    print(table(added, options.steps))
    write_json(options.json, {"added": added})
    return 0


if __name__ == "__main__":
    sys.exit(main())
