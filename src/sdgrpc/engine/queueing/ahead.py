"""The jobs that step and have another LoRA set to come: whose is wanted, being made, waited for."""

from __future__ import annotations

from collections import deque

from sdgrpc.engine.job import Job


class SetsAhead:
    """Which jobs' next sets are to be made beside their steps. Everything needs the queue's lock.

    One set is made at a time. The thread that makes it works on its job too, which may not be ended
    meanwhile: `end_later` leaves that to the thread.
    """

    def __init__(self) -> None:
        self._wanted: deque[Job] = deque()
        self._expected: set[int] = set()
        self._making: Job | None = None
        self._waiting: dict[int, Job] = {}
        self._awake: dict[int, Job] = {}
        self._ends_later = False
        self._error: BaseException | None = None

    def want(self, job: Job) -> None:
        """Have the next set of a job made, unless it is on its way already."""
        if job not in self._wanted and job is not self._making:
            self._wanted.append(job)

    def expect(self, job: Job) -> None:
        """Note that the next set of a job will be wanted, once its files are found."""
        self._expected.add(job.job_id)

    def come(self, job: Job, *, steps: bool) -> None:
        """Note that the files of an expected set are found, or will not be; a job that steps wants it now."""
        self._expected.discard(job.job_id)
        if steps:
            self.want(job)

    def take(self) -> Job | None:
        """Return the job whose set is to be made next, and note that it is being made."""
        if not self._wanted:
            return None
        self._making = self._wanted.popleft()
        return self._making

    def wait(self, job: Job) -> None:
        """Note that a job cannot go on without its next set; it may be there since it was asked for."""
        on_its_way = job in self._wanted or job is self._making or job.job_id in self._expected
        (self._waiting if on_its_way else self._awake)[job.job_id] = job

    def made(self) -> tuple[bool, BaseException | None]:
        """Note that a set is made, or failed; return whether its job is to be ended, and by which error."""
        job, self._making = self._making, None
        if job is not None and self._waiting.pop(job.job_id, None) is not None:
            self._awake[job.job_id] = job
        ending = self._ends_later, self._error
        self._ends_later, self._error = False, None
        return ending

    def awake(self) -> list[Job]:
        """Return the jobs that waited and can go on, once."""
        jobs, self._awake = list(self._awake.values()), {}
        return jobs

    @property
    def has_awake(self) -> bool:
        """Whether some can go on."""
        return bool(self._awake)

    def end_later(self, job: Job, error: BaseException | None) -> bool:
        """Leave the end of a job to the thread that makes its set; False if none does."""
        if job is not self._making:
            return False
        if not self._ends_later:
            self._ends_later, self._error = True, error
        return True

    def forget(self, job: Job) -> None:
        """Let go of a job that ended; what is being made for it goes on."""
        if job in self._wanted:
            self._wanted.remove(job)
        for jobs in (self._waiting, self._awake):
            jobs.pop(job.job_id, None)
