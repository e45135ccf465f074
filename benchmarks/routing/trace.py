"""Calls as they were published: few popular LoRAs, thousands of rare ones, one or two a call, in bursts."""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import accumulate

from sdgrpc.engine.cluster.routing.holdings import Wanted

LORAS = 6980
EXPONENT = 1.1
"""Of Zipf's law. With it 12 of 6,980 LoRAs have 1 % of the calls or more, so 99.8 % have less
(Katz, ATC 2025)."""
MEMBERS = (0.55, 0.35, 0.10)
"""Shares of calls with one, two and three LoRAs."""
SESSION = 3.0
"""Calls, on average, that somebody makes with a set one after the other."""
PAUSE_SECONDS = 10.0
BUSY_SHARE, BUSY_RATE, PHASE_SECONDS = 0.2, 2.0, 60.0
"""A fifth of the time is busy, with twice the mean rate of calls."""


@dataclass(frozen=True, slots=True)
class Call:
    """A call at a time in seconds."""

    time: float
    wanted: Wanted


def weights() -> list[float]:
    """The share of each LoRA in all that are named."""
    raw = [rank**-EXPONENT for rank in range(1, LORAS + 1)]
    total = sum(raw)
    return [weight / total for weight in raw]


def trace(count: int, rate: float, seed: int = 0) -> list[Call]:
    """Make `count` calls of `rate` a second on average, in the order of their times."""
    chance = random.Random(seed)
    sums = list(accumulate(weights()))
    calls: list[Call] = []
    time = 0.0
    while len(calls) < 1.2 * count:  # the last sessions are cut
        busy = chance.random() < BUSY_SHARE
        factor = BUSY_RATE if busy else (1 - BUSY_SHARE * BUSY_RATE) / (1 - BUSY_SHARE)
        end = time + chance.expovariate(1 / PHASE_SECONDS)
        while (time := time + chance.expovariate(rate * factor / SESSION)) < end:
            calls += session(chance, sums, time)
    return sorted(calls, key=lambda call: call.time)[:count]


def session(chance: random.Random, sums: list[float], time: float) -> list[Call]:
    """Make one person's calls with one set."""
    members = chance.choices((1, 2, 3), MEMBERS)[0]
    files: set[int] = set()
    while len(files) < members:
        files.update(chance.choices(range(LORAS), cum_weights=sums))
    names = frozenset(map(str, files))
    wanted = Wanted("sd15", " ".join(sorted(names)), names)
    calls = [Call(time, wanted)]
    while chance.random() < 1 - 1 / SESSION:
        time += chance.expovariate(1 / PAUSE_SECONDS)
        calls.append(Call(time, wanted))
    return calls
