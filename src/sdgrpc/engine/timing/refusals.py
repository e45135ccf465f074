"""Who is let in: while there is room, and only with a deadline that can be kept."""

from __future__ import annotations

from sdgrpc.engine.job import Job
from sdgrpc.engine.options import LoopOptions
from sdgrpc.engine.queueing.phases import Phases
from sdgrpc.engine.queueing.turns import check_share
from sdgrpc.engine.timing.estimates import Estimates
from sdgrpc.engine.timing.meter import Turnover
from sdgrpc.errors import DeadlineTooSoon, Draining, QueueFull


class Door:
    """Judges a job before it is queued, from what is measured. Called with the queue's lock held."""

    def __init__(self, options: LoopOptions, estimates: Estimates) -> None:
        self._options, self._estimates = options, estimates
        self.turnover = Turnover()

    def check_room(
        self, jobs: Phases, caller: str, *, draining: bool, ahead: int = 0, ahead_of_caller: int = 0
    ) -> None:
        """Raise Draining, QueueFull or TokenQueueFull if a job of `caller` would not be taken now.

        `ahead` jobs, `ahead_of_caller` of them the caller's, come before it that are not queued yet.
        """
        if draining:
            raise Draining("the server is stopping; send the job to another", retry_after=1.0)
        queued, seconds = len(jobs.queued) + ahead, self.turnover.mean_seconds
        if queued >= self._options.queue_size:
            raise QueueFull(
                f"{queued} jobs wait already (queue_size); try again later or on another server",
                retry_after=max(1.0, seconds * queued / 2),
            )
        theirs = sum(job.task.caller == caller for job in jobs.queued) + ahead_of_caller
        check_share(theirs, caller, self._options.max_queued_jobs_per_token, max(1.0, seconds))

    def check_deadline(self, job: Job, jobs: Phases, place: int) -> None:
        """Raise DeadlineTooSoon if a job that has that place in the queue cannot be drawn in time.

        One of a model and size that was not drawn lately is let in.
        """
        left = job.seconds_left()
        cost = self._estimates.alone(job.task) if left is not None else None
        if left is None or cost is None:
            return
        wait = self._wait_for(job, jobs, place)
        if cost.seconds + wait <= left:
            return
        task = job.task
        sizes = " and ".join(f"{each.width}x{each.height}" for each in task.passes)
        raise DeadlineTooSoon(
            f"this would take about {cost.seconds + wait:.2g} s: {cost.steps:.2g} s for {task.step_count} "
            f"steps of {sizes}, {cost.images:.2g} s to decode, {wait:.2g} s for the jobs "
            f"before it; the deadline is in {left:.2g} s; allow more time, or ask for less"
        )

    def estimated_wait(self, jobs: Phases) -> float:
        """Return the seconds until a job sent now would begin, as far as recent jobs tell."""
        if not jobs.queued and len(jobs.stepping) < self._options.max_running_jobs:
            return 0.0
        return self.turnover.mean_seconds * (len(jobs.queued) + 1) / max(len(jobs.stepping), 1)

    def _wait_for(self, job: Job, jobs: Phases, place: int) -> float:
        """Return the seconds of other jobs' calls that one has to sit out at least.

        So many have to end first that it may run, the shortest at best. Of those that go on, each of its own
        steps waits for at most `max_wait_calls` calls of those that go before it.
        """
        queued = sorted((other for other in jobs.queued if other is not job), key=self._share)[:place]
        ahead = sorted([*queued, *jobs.begun], key=self._share)
        first = max(0, len(ahead) - self._options.max_running_jobs + 1)
        longest = max((self._estimates.share(other.task, 1) for other in jobs.all), default=0.0)
        bound = job.task.step_count * self._options.max_wait_calls * longest
        beside = sum(self._share(other) for other in ahead[first:] if self._goes_before(other, job))
        return sum(map(self._share, ahead[:first])) + min(beside, bound)

    def _goes_before(self, other: Job, job: Job) -> bool:
        """Whether all calls of one job surely come before those of a new one, as long as patience lasts.

        By slack none do: that of the job that runs grows.
        """
        if self._options.next_call == "least_work":
            return self._left(other) <= self._left(job)
        return self._options.next_call == "oldest"

    def _left(self, job: Job) -> float:
        return self._estimates.left(job.task, job.steps_left)

    def _share(self, job: Job) -> float:
        return self._estimates.share(job.task, job.steps_left)
