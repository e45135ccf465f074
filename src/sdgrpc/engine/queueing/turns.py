"""Whose turn it is among callers, and how many jobs of one may wait."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import count
from typing import NamedTuple

from sdgrpc.engine.job import Job
from sdgrpc.errors import TokenQueueFull


class Waiting(NamedTuple):
    """Somebody who wants to begin: a queued job or a lease, the older the smaller the id."""

    waiting_id: int
    model: str = ""
    caller: str = ""

    @classmethod
    def of(cls, job: Job) -> Waiting:
        """Return what a queued job is to the policy."""
        return cls(job.job_id, job.task.model, job.task.caller)


class Turns:
    """Orders those who wait, so that callers take turns however many jobs each has sent.

    The caller whose turn was longest ago goes first, with the oldest that it has waiting; then the next
    caller; once everybody had a turn it begins anew. So **while one that has k of its own caller's before it
    waits, every other caller begins at most k + 1**. With one caller the order is that of age.

    At most `max_running` of a caller, unless it has no name, have begun and not ended; more of them are
    passed by. What is kept is a number for each caller that ever came, so their names must be few.
    """

    def __init__(self, max_running: int | None = None) -> None:
        self._max_running = max_running
        self._times = count(1)
        self._last: dict[str, int] = {}  # caller -> when its last turn was
        self._running: dict[int, str] = {}  # begun and not ended: id -> caller

    def order(self, waiting: Iterable[Waiting], *, bounded: bool = True) -> Sequence[Waiting]:
        """Return who may begin, first to last; unless `bounded`, those too that `max_running` holds back."""
        of_caller: defaultdict[str, list[Waiting]] = defaultdict(list)
        for each in sorted(waiting):
            of_caller[each.caller].append(each)
        if bounded and self._max_running is not None:
            running = Counter(self._running.values())
            for caller in of_caller.keys() - {""}:
                del of_caller[caller][max(self._max_running - running[caller], 0) :]
        rounds = (
            (place, self._last.get(caller, 0), each)
            for caller, theirs in of_caller.items()
            for place, each in enumerate(theirs)
        )
        return [each for _, _, each in sorted(rounds)]

    def begin(self, waiting: Waiting) -> None:
        """Take note that somebody begins."""
        self.spend(waiting.caller)
        self._running[waiting.waiting_id] = waiting.caller

    def spend(self, caller: str) -> None:
        """Take note that a caller had its turn, whether or not something of it began."""
        self._last[caller] = next(self._times)

    def end(self, waiting_id: int) -> None:
        """Take note that one that began has ended; others are unknown here."""
        self._running.pop(waiting_id, None)

    def place(self, queued: Iterable[Job], job: Job) -> int:
        """Return how many of the queued jobs come before this one."""
        order = self.order(map(Waiting.of, queued), bounded=False)
        return next(place for place, each in enumerate(order) if each.waiting_id == job.job_id)


def check_share(waiting: int, caller: str, most: int | None, retry_after: float) -> None:
    """Raise TokenQueueFull if as many jobs of a named caller wait as may."""
    if caller and most is not None and waiting >= most:
        raise TokenQueueFull(
            f"{waiting} jobs of {caller!r} wait already (max_queued_jobs_per_token); try again later",
            retry_after=retry_after,
        )


def check_sets(preparing: int, caller: str, most: int | None) -> None:
    """Raise TokenQueueFull if as many sets are prepared for a named caller as jobs of it may wait."""
    if caller and most is not None and preparing >= most:
        raise TokenQueueFull(
            f"{preparing} sets of {caller!r} wait to be prepared already (max_queued_jobs_per_token)",
            retry_after=1.0,
        )
