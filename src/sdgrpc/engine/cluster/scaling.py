"""How many replicas the queue asks for."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass

from sdgrpc.engine.cluster.keeper import Keeper
from sdgrpc.errors import ReplicaNotFound

logger = logging.getLogger(__name__)

MORE_QUEUED = 2.0
"""Jobs that wait for each replica, above which another is worth its start."""
MORE_SECONDS = 5.0
"""For so long, since starting one takes longer than most queues last."""
FEWER_BUSY = 0.5
"""Share of the other replicas that would be busy, below which one is too many."""
FEWER_SECONDS = 120.0
"""For so long: a replica that ends loses its fused sets."""


@dataclass
class Scaler:
    """Decides by the load between `least` and `most`; both ways need a load that lasts (hysteresis).

    It knows no clock: times are the caller's, in seconds.
    """

    least: int
    most: int
    _high_since: float | None = None
    _low_since: float | None = None

    def lower(self, count: int) -> None:
        """Keep so many fewer, and one at least."""
        self.least, self.most = max(self.least - count, 1), max(self.most - count, 1)

    def wanted(self, replicas: int, running: int, queued: int, now: float) -> int:
        """Return how many replicas there should be, one more or fewer than there are at most.

        Args:
            replicas: those that take jobs or are being started.
            running: jobs that have begun.
            queued: jobs that wait.
            now: the time.

        """
        if replicas < self.least:
            return replicas + 1
        if replicas > self.most:
            return replicas - 1
        is_high = queued > MORE_QUEUED * replicas
        is_low = not queued and running <= FEWER_BUSY * (replicas - 1)
        self._high_since = _since(self._high_since, now, holds=is_high and replicas < self.most)
        self._low_since = _since(self._low_since, now, holds=is_low and replicas > self.least)
        if self._high_since is not None and now - self._high_since >= MORE_SECONDS:
            self._high_since = None
            return replicas + 1
        if self._low_since is not None and now - self._low_since >= FEWER_SECONDS:
            self._low_since = None
            return replicas - 1
        return replicas


class Scaling:
    """Keeps as many replicas as a scaler wants. Implements `engine.base.Replicas`."""

    def __init__(self, keeper: Keeper, scaler: Scaler) -> None:
        self._keeper, self._scaler = keeper, scaler

    def fit(self) -> None:
        """Add a replica, or let one go, as the load asks for."""
        count, now = len(self._keeper.names), self._keeper.status()
        wanted = self._scaler.wanted(count, now.running, now.queued, time.monotonic())
        if wanted > count:
            logger.info("%d jobs wait for %d replicas: another one is started", now.queued, count)
            self._keeper.add(wanted - count)
        elif wanted < count and self._keeper.ready:
            name = self._keeper.idlest()
            logger.info("%s is let go: %d replicas are enough", name, wanted)
            self._keeper.let_go(name)

    def scale(self, least: int, most: int) -> int:
        """See `Replicas.scale`."""
        self._scaler.least, self._scaler.most = least, most
        return len(self._keeper.names)

    def drain(self, name: str) -> list[str]:
        """See `Replicas.drain`."""
        going = self._keeper.of(name)
        if not going:
            raise ReplicaNotFound(name, f"no replica {name!r} here, and none on a node of that address")
        self._scaler.lower(len(going))
        for one in going:
            self._keeper.let_go(one)
        return going


def _since(before: float | None, now: float, *, holds: bool) -> float | None:
    """Return since when something holds."""
    if not holds:
        return None
    return now if before is None else before
