"""The jobs behind the door, and how many of them are one caller's."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from sdgrpc.domain import Accepted, LoraRef, Prepared, Task, UpscaleProgress, UpscaleTask
from sdgrpc.engine.cluster.messages.observations import Took
from sdgrpc.engine.cluster.messages.outbox import Item
from sdgrpc.engine.cluster.routing.holdings import Wanted
from sdgrpc.engine.observing.observer import UNOBSERVED, JobObserver, Stage
from sdgrpc.engine.queueing.turns import check_sets, check_share
from sdgrpc.engine.timing.meter import Turnover


@dataclass(eq=False)
class Job:
    """A job on its way through replicas: `method` of a replica runs it.

    `seen` says what its client was told, so that it is not told twice; `began` when the run that goes on now
    left its replica's queue, in seconds of the monotonic clock.
    """

    method: str
    task: Task | UpscaleTask
    wanted: Wanted
    loras: tuple[LoraRef, ...]
    deadline: float | None
    previews: Callable[[], bool]
    seen: set[Hashable] = field(default_factory=set)
    follower: JobObserver = UNOBSERVED
    is_followed: bool = False
    was_answered: bool = False
    began: float | None = None

    @property
    def caller(self) -> str:
        """Whose share it takes; pictures that are enlarged take nobody's."""
        return self.task.caller if isinstance(self.task, Task) else ""

    @property
    def is_accepted(self) -> bool:
        """Whether its client was told that it waits."""
        return Accepted.__name__ in self.seen

    def hear(self, message: Sequence[Item]) -> None:
        """Take note that its replica answered, and whether it says that the job left the queue there."""
        self.was_answered = True
        if self.began is None and any(map(begins, message)):
            self.began = time.monotonic()


def begins(item: Item) -> bool:
    """Whether it says that a job is at work; a caller's jobs say so at once, see `Outbox`."""
    is_told = isinstance(item, Took) and item.stage is Stage.QUEUED
    return is_told or isinstance(item, Prepared | UpscaleProgress)


class Inside:
    """The jobs that came in, and the share of all replicas' queues that each caller may take.

    A single engine keeps this bound by itself; here the replicas have none, and their sum keeps it. A job
    waits until it has begun, and once more where it is run again. On the server's event loop.
    """

    def __init__(self, most: int | None = None) -> None:
        self._most = most
        self._jobs: set[Job] = set()
        self._sets: Counter[str] = Counter()
        self._turnover = Turnover()

    def __bool__(self) -> bool:
        return bool(self._jobs)

    @property
    def finished(self) -> int:
        """How many jobs were drawn, known before the replicas' next reports say so."""
        return self._turnover.jobs

    def check(self, caller: str, ahead: int = 0) -> None:
        """Raise TokenQueueFull if as many jobs of a named caller wait as may.

        `ahead` requests of the caller have a place at the door. A job keeps that until it is accepted, so
        that those on their way to a replica are among them and are counted once.
        """
        waiting = [job for job in self._jobs if job.caller == caller and job.began is None]
        coming = sum(not job.is_accepted for job in waiting)
        count = len(waiting) - coming + max(coming, ahead)
        check_share(count, caller, self._most, max(1.0, self._turnover.mean_seconds))

    @contextmanager
    def holding(self, job: Job) -> Iterator[None]:
        """Count a job until it ends."""
        self._jobs.add(job)
        try:
            yield
        finally:
            self._jobs.discard(job)

    @contextmanager
    def preparing(self, caller: str) -> Iterator[None]:
        """Count a set that is prepared; raises TokenQueueFull if as many of the caller's are as may."""
        check_sets(self._sets[caller], caller, self._most)
        self._sets[caller] += 1
        try:
            yield
        finally:
            self._sets[caller] -= 1
            self._sets += Counter()  # without those that have none any more

    def note_finished(self, job: Job) -> None:
        """Learn from a job that is drawn how long the place of one is taken."""
        if job.began is not None:
            self._turnover.note(time.monotonic() - job.began, counted=True)
