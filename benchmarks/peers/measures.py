"""What is asked of every side, the same for each: a record of seconds, of bytes, or of why there is none."""

from __future__ import annotations

import random
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from benchmarks.peers.sides import PeerError, Side, together
from benchmarks.peers.workers.loop import Drawing
from benchmarks.tables import percentile, seconds

Record = dict[str, Any]
Loras = tuple[tuple[str, float], ...]
LOAD = 0.8  # of what we draw one after the other, which the trace's arrivals are


class Cost(NamedTuple):
    """What a picture takes: by the clock, and of the processor's time on all cores."""

    seconds: float
    processor_seconds: float

    def less(self, other: Cost, steps: int) -> Cost:
        """What each of `steps` more steps takes."""
        clock, processor = (mine - theirs for mine, theirs in zip(self, other, strict=True))
        return Cost(clock / steps, processor / steps)


@dataclass(frozen=True)
class Extent:
    """How much is drawn."""

    names: tuple[str, ...]
    rounds: int
    side: int
    steps: int
    clients: int
    requests: int


class Measures:
    """Measures a side; a row that it fails at says why, and the others are still tried."""

    def __init__(self, side: Side, extent: Extent, pause: float | None, tell: Callable[[str], None]) -> None:
        self._side, self._extent, self._pause, self._tell = side, extent, pause, tell

    def run(self) -> Record:
        """Every row in its order."""
        record: Record = {}
        rows = (self.load, self.steps, self.sets, self.clients, self.trace)
        for row in rows:
            began = time.perf_counter()
            try:
                record |= row()
            except PeerError as error:
                record[f"{row.__name__}_failed"] = str(error)
            self._tell(f"  {row.__name__}: {time.perf_counter() - began:.0f} s")
        try:
            record["memory_bytes"] = self._side.memory()
        except PeerError as error:
            record["memory_failed"] = str(error)
        return record

    def load(self) -> Record:
        """From the start of the process' loading until it could draw, and its first picture."""
        loaded = self._cost(self._side.load)
        return told("load", [loaded]) | told("first_picture", [self._draw(steps=self._extent.steps)])

    def steps(self) -> Record:
        """A step alone: what five steps take more than one, without, with one and with three files."""
        names = self._extent.names
        found: Record = {}
        for key, count in (("step", 0), ("step_1_lora", 1), ("step_3_loras", 3)):
            chosen = tuple((name, 0.5) for name in names[:count])
            self._draw(chosen)
            pairs = [(self._draw(chosen, steps=5), self._draw(chosen)) for _ in range(self._extent.rounds)]
            found |= told(key, [more.less(less, 4) for more, less in pairs])
        return found

    def sets(self) -> Record:
        """A picture of one step: with the same set as before, a new one, a known one, another strength."""
        names, rounds = self._extent.names, self._extent.rounds
        new, known = names[3 : 3 + rounds + 1], names[:2]
        base: Loras = ((names[0], 0.5),)
        self._draw(base)
        found = told("same_set", [self._draw(base) for _ in range(rounds)])
        found |= told("new_set", [self._draw(((name, 0.5),)) for name in new[:rounds]])
        for name in known:
            self._draw(((name, 0.5),))
        hits = [self._draw(((known[number % 2], 0.5),)) for number in range(rounds)]
        found |= told("known_set", hits)
        self._draw(base)
        strengths = [self._draw(((names[0], 0.6 + 0.1 * number),)) for number in range(rounds)]
        return found | told("strength", strengths)

    def clients(self) -> Record:
        """As many clients at once, a set of their own each."""
        extent = self._extent
        asked = [
            Drawing(((extent.names[number % len(extent.names)], 0.9),), extent.steps, extent.side, number)
            for number in range(extent.clients)
        ]
        return told("clients", [self._cost(partial(together, self._side, asked))])

    def trace(self) -> Record:
        """Poisson's arrivals over the files by Zipf's popularity; the latencies, waiting included."""
        drawings = trace_of(self._extent)
        pause = self._pause if self._pause is not None else self._own_pause(drawings)
        chance, at, entries = random.Random(1), 0.0, []
        for one in drawings:
            entries.append((at, one))
            at += chance.expovariate(1 / pause)
        before = self._side.processor_seconds()
        ordered = sorted(replayed(self._side, entries))
        return {
            "trace_processor_seconds": self._side.processor_seconds() - before,
            "trace_pause_seconds": pause,
            "trace_mean_seconds": statistics.mean(ordered),
            "trace_p95_seconds": percentile(ordered, 0.95),
        }

    def _own_pause(self, drawings: Sequence[Drawing]) -> float:
        """The mean time between arrivals: from what the first few take one after the other."""
        sample = drawings[: max(2, len(drawings) // 6)]
        return statistics.mean(seconds(partial(self._side.draw, one)) for one in sample) / LOAD

    def _draw(self, loras: Loras = (), steps: int = 1) -> Cost:
        return self._cost(partial(self._side.draw, Drawing(loras, steps, self._extent.side)))

    def _cost(self, work: Callable[[], object]) -> Cost:
        before = self._side.processor_seconds()
        spent = seconds(work)
        return Cost(spent, self._side.processor_seconds() - before)


def told(key: str, costs: Sequence[Cost]) -> Record:
    """Medians, the least and the most, by the clock and by the processor."""
    found: Record = {}
    for name in Cost._fields:
        values = [getattr(cost, name) for cost in costs]
        found |= {
            f"{key}_{name}": statistics.median(values),
            f"{key}_{name}_range": [min(values), max(values)],
        }
    return found


def trace_of(extent: Extent) -> list[Drawing]:
    """Requests with none, one or two files, by popularity."""
    chance = random.Random(0)
    popularity = [1 / (rank + 1) for rank in range(len(extent.names))]
    found = []
    for seed in range(extent.requests):
        count = chance.choices((0, 1, 2), (1, 5, 2))[0]
        chosen = sorted(set(chance.choices(extent.names, popularity, k=count)))
        found.append(Drawing(tuple((name, 1.0) for name in chosen), extent.steps, extent.side, seed))
    return found


def replayed(side: Side, entries: Sequence[tuple[float, Drawing]]) -> list[float]:
    """Send each request at its time; the seconds from then until its picture is there."""
    began, never = time.perf_counter(), threading.Event()

    def one(entry: tuple[float, Drawing]) -> float:
        at, asked = entry
        never.wait(max(0.0, began + at - time.perf_counter()))
        side.draw(asked)
        return time.perf_counter() - began - at

    with ThreadPoolExecutor(len(entries) if side.at_once else 1) as clients:
        return list(clients.map(one, entries))
