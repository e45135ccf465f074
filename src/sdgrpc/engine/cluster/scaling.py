"""How many replicas the queue asks for."""

from __future__ import annotations

from dataclasses import dataclass

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


def _since(before: float | None, now: float, *, holds: bool) -> float | None:
    """Return since when something holds."""
    if not holds:
        return None
    return now if before is None else before
