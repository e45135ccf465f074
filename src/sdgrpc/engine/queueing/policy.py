"""Which queued job begins next: what the queue asks, and the answer where every model is there."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from sdgrpc.engine.job import Job
from sdgrpc.engine.queueing.turns import Turns, Waiting


class QueuePolicy(Protocol):
    """What decides which queued job begins. Called with the queue's lock held; `on_change` is called without.

    `on_change` is set by the queue, to be called whenever `choose` may answer otherwise than before.
    """

    on_change: Callable[[], None]

    def choose(self, queued: Iterable[Job], *, room: bool) -> Job | None:
        """Return the job that begins now, None if none may; `queued` is in the order of arrival."""
        ...

    def place(self, queued: Iterable[Job], job: Job) -> int:
        """Return how many of the queued jobs come before this one, by what is known now."""
        ...

    def leave(self, job: Job) -> None:
        """Forget a job that ended; unknown ones are forgotten already."""
        ...


class FirstCome:
    """The oldest job of the caller whose turn it is begins: every model is there."""

    def __init__(self, turns: Turns | None = None) -> None:
        self.on_change: Callable[[], None] = lambda: None
        self._turns = turns or Turns()

    def choose(self, queued: Iterable[Job], *, room: bool) -> Job | None:
        """See `QueuePolicy.choose`."""
        if not room:
            return None
        jobs = {job.job_id: job for job in queued}
        first = next(iter(self._turns.order(map(Waiting.of, jobs.values()))), None)
        if first is None:
            return None
        self._turns.begin(first)
        return jobs[first.waiting_id]

    def place(self, queued: Iterable[Job], job: Job) -> int:
        """See `QueuePolicy.place`."""
        return self._turns.place(queued, job)

    def leave(self, job: Job) -> None:
        """See `QueuePolicy.leave`."""
        self._turns.end(job.job_id)
