"""Replicas with queues and a cache of sets, and a clock that jumps from event to event."""

from __future__ import annotations

import heapq
import statistics
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.routing.rules import Rule
from benchmarks.routing.trace import Call
from sdgrpc.engine.cluster.routing.holdings import Held, Wanted

DRAW_SECONDS, FUSE_SECONDS = 2.0, 1.0
SETS, FILES = 8, 64
"""Fused sets, and files, that a replica keeps: the longest unused goes first."""
WARM = 0.2
"""The share of the calls that fills the caches and is not counted."""


@dataclass
class Replica:
    """One engine: it draws one job at a time, the fusing included."""

    queue: deque[Call] = field(default_factory=deque)
    sets: OrderedDict[str, None] = field(default_factory=OrderedDict)
    files: OrderedDict[str, None] = field(default_factory=OrderedDict)
    busy: bool = False

    def take(self, wanted: Wanted) -> bool:
        """Have a job's set from now on; tell whether it was there."""
        hit = wanted.set_key in self.sets
        keep(self.sets, [wanted.set_key], SETS)
        keep(self.files, sorted(wanted.files), FILES)
        return hit

    def held(self) -> Held:
        """Say what it holds."""
        return Held(frozenset(self.sets), frozenset(self.files), frozenset({"sd15"}), len(self.sets) >= SETS)


def keep(cache: OrderedDict[str, None], things: Sequence[str], capacity: int) -> None:
    """Put things at the new end, and drop from the old one."""
    for thing in things:
        cache[thing] = None
        cache.move_to_end(thing)
    while len(cache) > capacity:
        cache.popitem(last=False)


def simulate(calls: Sequence[Call], rule: Rule, names: Sequence[str]) -> dict[str, Any]:
    """Run a trace; waits are seconds from a call to its first step, the fusing included."""
    replicas = {name: Replica() for name in names}
    for name, replica in replicas.items():
        rule.holds(name, replica.held())
    ends: list[tuple[float, str]] = []
    waits: list[float] = []
    hits: list[bool] = []
    peaks: list[float] = []
    first = calls[int(WARM * len(calls))].time
    inside, sample = 0, max(len(calls) // 2000, 1)

    def begin(name: str, now: float) -> None:
        replica = replicas[name]
        if replica.busy or not replica.queue:
            return
        call = replica.queue.popleft()
        hit, replica.busy = replica.take(call.wanted), True
        if not hit:
            rule.holds(name, replica.held())
        ready = now if hit else now + FUSE_SECONDS
        heapq.heappush(ends, (ready + DRAW_SECONDS, name))
        if call.time >= first:
            waits.append(ready - call.time)
            hits.append(hit)

    for number, call in enumerate(calls):
        while ends and ends[0][0] <= call.time:
            now, done = heapq.heappop(ends)
            replicas[done].busy, inside = False, inside - 1
            rule.end(done)
            begin(done, now)
        name = rule.choose(call.wanted)
        replicas[name].queue.append(call)
        inside += 1
        begin(name, call.time)
        if number % sample == 0 and call.time >= first:
            most = max(len(one.queue) + one.busy for one in replicas.values())
            peaks.append(most / (inside / len(replicas)))
    while ends:  # whoever still waits is counted too
        now, done = heapq.heappop(ends)
        replicas[done].busy = False
        begin(done, now)
    ordered = sorted(waits)
    return {
        "hit_rate": statistics.mean(hits),
        "mean_wait_seconds": statistics.mean(waits),
        "p95_wait_seconds": ordered[int(0.95 * len(ordered))],
        "imbalance": statistics.mean(peaks),
    }


def moves(calls: Sequence[Call], rule: Rule, names: Sequence[str], *, joins: bool) -> float:
    """Return the share of sets that change their replica, though it lives, when another joins or dies.

    Each set is asked for once before and once after, by a fleet that has nothing else to do.
    """
    wanted = list({call.wanted.set_key: call.wanted for call in calls[-4000:]}.values())[:1000]
    lost = names[0]

    def homes() -> list[str]:
        chosen = []
        for one in wanted:
            name = rule.choose(one)
            rule.end(name)
            chosen.append(name)
        return chosen

    homes()  # whoever is asked holds the set from then on
    before = homes()
    rule.change(joins="new") if joins else rule.change(leaves=lost)
    pairs = [(old, new) for old, new in zip(before, homes(), strict=True) if joins or old != lost]
    return sum(old != new for old, new in pairs) / max(len(pairs), 1)
