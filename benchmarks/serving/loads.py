"""Longer traces at several shares of what the server can do, by whose call is next."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from threading import Event
from typing import Any, NamedTuple, get_args

from benchmarks.serving.sides import Drawing, Ours, our_server
from benchmarks.serving.subject import Subject
from benchmarks.tables import percentile, seconds
from sdgrpc.client import DeadlineExceededError
from sdgrpc.engine.scheduler import NextCall

LOADS = (0.6, 0.8, 1.0, 1.2)
ORDERS: tuple[NextCall, ...] = get_args(NextCall)
SHARE_WITH_DEADLINE = 0.7
SAMPLE = 20


class Entry(NamedTuple):
    """A request, when it is sent, and how many times what it takes alone its sender waits; 0 is for ever."""

    at: float
    drawing: Drawing
    patience: float


def loads(subject: Subject, *, requests: int, side: int, steps: int) -> dict[str, Any]:
    """Throughput, latencies and deadlines met, for each load and order; all orders get the same trace.

    The load is a share of what the server draws one request after the other, of the same mix.
    """
    drawings = mixture(subject.loras, requests, side, steps)
    with our_server(subject) as ours:
        ours.draw(drawings[0])
        sample = drawings[:SAMPLE]
        took = [seconds(partial(ours.draw, one)) for one in sample]
    step = sum(took) / sum(one.steps for one in sample)
    found: dict[str, Any] = {"requests": requests, "seconds_per_step_alone": step, "rows": []}
    for load in LOADS:
        for order in ORDERS:
            with our_server(subject, next_call=order, queue_size=requests) as ours:
                told = measured(ours, timed(drawings, load, step), step)
            found["rows"].append({"load": load, "next_call": order} | told)
            print(found["rows"][-1], flush=True)
    return found


def mixture(names: Sequence[str], requests: int, side: int, steps: int) -> list[Drawing]:
    """Half as many steps as are common, as many, or three times; none, one or two files by popularity."""
    chance = random.Random(0)
    popularity = [1 / (rank + 1) for rank in range(len(names))]
    drawn = []
    for seed in range(requests):
        count = chance.choices((0, 1, 2), (1, 5, 2))[0]
        chosen = tuple(sorted(set(chance.choices(names, popularity, k=count))))
        many = chance.choice((max(1, steps // 2), steps, steps, 3 * steps))
        drawn.append(Drawing(many, side, seed, chosen, preview=None))
    return drawn


def timed(drawings: Sequence[Drawing], load: float, step: float) -> list[Entry]:
    """Poisson's arrivals at a share of the capacity, most with a deadline."""
    chance = random.Random(1)
    mean, at, entries = step * statistics.mean(one.steps for one in drawings), 0.0, []
    for one in drawings:
        at += chance.expovariate(load / mean)
        patience = chance.uniform(1.5, 10) if chance.random() < SHARE_WITH_DEADLINE else 0.0
        entries.append(Entry(at, one, patience))
    return entries


def measured(ours: Ours, entries: Sequence[Entry], step: float) -> dict[str, float]:
    """Replay a trace; latencies are of requests that were drawn, from the time they were due to be sent."""
    began, never = time.perf_counter(), Event()

    def one(entry: Entry) -> float | None:
        never.wait(max(0.0, began + entry.at - time.perf_counter()))
        limit = entry.patience * step * entry.drawing.steps or None
        try:
            ours.draw(replace(entry.drawing, timeout=limit))
        except DeadlineExceededError:
            return None
        return time.perf_counter() - began - entry.at

    with ThreadPoolExecutor(len(entries)) as clients:
        latencies = list(clients.map(one, entries))
    spent = time.perf_counter() - began
    drawn = sorted(latency for latency in latencies if latency is not None)
    due = [latency is not None for latency, entry in zip(latencies, entries, strict=True) if entry.patience]
    return {
        "pictures_per_minute": 60 * len(drawn) / spent,
        "deadlines_met": sum(due) / len(due) if due else 1.0,
        "mean_seconds": statistics.mean(drawn),
        "p95_seconds": percentile(drawn, 0.95),
        "p99_seconds": percentile(drawn, 0.99),
    }
