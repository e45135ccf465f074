"""Deadlines met and latencies by whose call is next, simulated: `python -m benchmarks.deadlines`.

Workloads of 200 requests on LoRA sets of Zipf's popularity, with Poisson's arrivals at a share of what one
request at a time would take, run through the engine's own StepScheduler in simulated seconds. A call takes
a time that grows with its rows, as measured for SD1.5's real size; a job that is late is dropped, as the
engine does. All orders see the same workloads.
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, get_args

from benchmarks.tables import percentile, results_path, write_json
from sdgrpc.engine.options import LoopOptions
from sdgrpc.engine.scheduler import NextCall, Rest, StepScheduler

Group = tuple[int, ...]
ORDERS: tuple[NextCall, ...] = get_args(NextCall)
# Seconds of a UNet call: one of its own, and one for each row, by the picture's side.
CALL_SECONDS = {256: (0.19, 0.27), 512: (0.9, 1.25)}
ROWS = 2
SETS = 12


@dataclass
class Request:
    """A request of a trace: when it comes, what it shares calls with, when it must be done."""

    at: float
    group: Group
    steps: int
    deadline: float
    left: int = field(init=False)
    done: float = math.inf

    def __post_init__(self) -> None:
        self.left = self.steps

    @property
    def rest(self) -> Rest:
        """What is left of it."""
        return Rest(self.left * seconds(self.group, ROWS), self.deadline)


def seconds(group: Group, rows: int) -> float:
    """How long a call takes."""
    own, each = CALL_SECONDS[group[0]]
    return own + each * rows


def workload(seed: int, load: float, requests: int, deadlines: float) -> list[Request]:
    """Draw a trace; a share `deadlines` must be done within 1.5 to 10 times what they take alone."""
    chance = random.Random(seed)
    popularity = [1 / (rank + 1) for rank in range(SETS)]
    drawn = []
    for _ in range(requests):
        members = chance.choices(range(SETS), popularity, k=chance.choices((0, 1, 2), (1, 5, 2))[0])
        group = (chance.choices((256, 512), (4, 1))[0], *sorted(set(members)))
        patience = chance.uniform(1.5, 10) if chance.random() < deadlines else math.inf
        drawn.append((group, chance.choice((4, 8, 8, 12, 20)), patience))
    work = [steps * seconds(group, ROWS) for group, steps, _ in drawn]
    mean, at, trace = statistics.mean(work), 0.0, []
    for (group, steps, patience), alone in zip(drawn, work, strict=True):
        at += chance.expovariate(load / mean)
        trace.append(Request(at, group, steps, at + patience * alone))
    return trace


class Device:
    """A device in simulated seconds that runs the calls that the scheduler chooses."""

    def __init__(self, trace: Sequence[Request], order: NextCall) -> None:
        options = LoopOptions()
        self._scheduler = StepScheduler(
            max_rows=lambda _: options.max_rows_per_call, patience=options.max_wait_calls, order=order
        )
        self._most = options.max_running_jobs
        self._trace = trace
        self._queue = deque(enumerate(trace))
        self._running: dict[int, Request] = {}
        self._now = 0.0

    def run(self) -> None:
        """Run the trace to its end; each request is told when it was done."""
        while self._queue or self._running:
            self._begin()
            if self._running:
                self._call()
            elif self._queue:
                self._now = max(self._now, self._queue[0][1].at)

    def _begin(self) -> None:
        for number in [number for number, one in self._running.items() if one.deadline <= self._now]:
            self._forget(number)
        while self._queue and self._queue[0][1].at <= self._now and len(self._running) < self._most:
            number, one = self._queue.popleft()
            if one.deadline > self._now:
                self._running[number] = one
                self._scheduler.add(number, one.group, ROWS, rest=one.rest)

    def _call(self) -> None:
        batch = self._scheduler.next_batch(self._now)
        self._now += seconds(self._running[batch[0]].group, ROWS * len(batch))
        for number in batch:
            one = self._running[number]
            one.left -= 1
            self._scheduler.update(number, one.group, ROWS, rest=one.rest)
            if not one.left:
                one.done = self._now if self._now < one.deadline else math.inf
                self._forget(number)

    def _forget(self, number: int) -> None:
        del self._running[number]
        self._scheduler.remove(number)


def outcomes(
    seed: int, load: float, order: NextCall, requests: int, deadlines: float
) -> list[tuple[float, bool]]:
    """Run a workload; the latency of each request, infinite if it was dropped, and if it had a deadline."""
    trace = workload(seed, load, requests, deadlines)
    Device(trace, order).run()
    return [(one.done - one.at, one.deadline < math.inf) for one in trace]


def rows(
    workloads: int,
    loads: Sequence[float],
    requests: int,
    deadlines: Sequence[float],
    pool: ProcessPoolExecutor,
) -> Iterator[dict[str, Any]]:
    """Compare the orders at each load, over all workloads."""
    for share in deadlines:
        for load in loads:
            for order in ORDERS:
                one = partial(outcomes, load=load, order=order, requests=requests, deadlines=share)
                found = [each for part in pool.map(one, range(workloads), chunksize=8) for each in part]
                yield {"deadlines": share, "load": load, "next_call": order} | summary(found)


def summary(found: Sequence[tuple[float, bool]]) -> dict[str, float]:
    """What is told of a row; latencies are of requests that were done, in seconds."""
    done = sorted(latency for latency, _ in found if latency < math.inf)
    due = [latency < math.inf for latency, has_deadline in found if has_deadline]
    return {
        "done": len(done) / len(found),
        "deadlines_met": sum(due) / len(due) if due else 1.0,
        "mean_seconds": statistics.mean(done),
        "p95_seconds": percentile(done, 0.95),
        "p99_seconds": percentile(done, 0.99),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table, and write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workloads", type=int, default=500, help="at each load")
    parser.add_argument("--requests", type=int, default=200, help="of a workload")
    parser.add_argument("--loads", type=float, nargs="+", default=[0.6, 0.8, 1.0, 1.2])
    parser.add_argument("--deadlines", type=float, nargs="+", default=[0.7, 0.0], help="share that has one")
    parser.add_argument("--json", type=Path, help=f"default: {results_path('deadlines')}")
    options = parser.parse_args(arguments)
    heads = (
        "deadlines",
        "load",
        "next_call",
        "done",
        "deadlines_met",
        "mean_seconds",
        "p95_seconds",
        "p99_seconds",
    )
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    results = []
    with ProcessPoolExecutor() as pool:
        for row in rows(options.workloads, options.loads, options.requests, options.deadlines, pool):
            results.append(row)
            cells = (f"{row[head]:.3g}" if isinstance(row[head], float) else row[head] for head in heads)
            print(f"| {' | '.join(cells)} |", flush=True)
    asked = {name: value for name, value in vars(options).items() if name != "json"}
    write_json(options.json or results_path("deadlines"), {"options": asked, "rows": results})


if __name__ == "__main__":
    main()
