"""The jobs that an engine has, by how far they are."""

from __future__ import annotations

from collections import deque

from sdgrpc.engine.job import Job
from sdgrpc.engine.queueing.ahead import SetsAhead
from sdgrpc.errors import SdgrpcError


class Phases:
    """Jobs that wait, are prepared, step and finish. Everything needs the queue's lock."""

    def __init__(self) -> None:
        self.queued: deque[Job] = deque()
        self.preparing: dict[int, Job] = {}
        self.stepping: dict[int, Job] = {}  # those that the scheduler knows, and those that wait for a set
        self.finishing: dict[int, Job] = {}
        self.ahead = SetsAhead()
        self._phases = (self.preparing, self.stepping, self.finishing)

    @property
    def running(self) -> int:
        """How many have begun and not ended."""
        return sum(map(len, self._phases))

    @property
    def begun(self) -> list[Job]:
        """Those that have begun and not ended."""
        return [job for phase in self._phases for job in phase.values()]

    @property
    def all(self) -> list[Job]:
        """Every one, those that wait first."""
        return [*self.queued, *self.begun]

    @property
    def has_awake(self) -> bool:
        """Whether a job that waited for a set is to go on, or to be dropped."""
        return self.ahead.has_awake or any(job.unwanted for job in self.stepping.values())

    def begin(self, job: Job) -> None:
        """From the queue to being prepared."""
        self.queued.remove(job)
        self.preparing[job.job_id] = job

    def step(self, job: Job) -> None:
        """From being prepared, or from what comes between two passes, to stepping."""
        self.forget(job)
        self.stepping[job.job_id] = job

    def finish(self, job: Job) -> None:
        """From wherever it is to finishing."""
        self.forget(job)
        self.finishing[job.job_id] = job

    def forget(self, job: Job) -> None:
        """Let go of a job that has begun; unknown ones are forgotten already."""
        self.ahead.forget(job)
        for phase in self._phases:
            phase.pop(job.job_id, None)

    def leave_queue(self, job: Job) -> bool:
        """Take a job out of the queue; False if it is not there."""
        waiting = job in self.queued
        if waiting:
            self.queued.remove(job)
        return waiting

    def end_all(self, error: SdgrpcError) -> list[Job]:
        """End every stream with `error`, empty the queue, and return all jobs that there were."""
        jobs = self.all
        self.queued.clear()
        for job in jobs:
            job.stream.end(error)
            job.cancelled = True
        return jobs
