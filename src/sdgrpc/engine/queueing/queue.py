"""The queue: who is let in, who waits, which job begins next, how far each is. No torch here."""

from __future__ import annotations

import threading

from sdgrpc.engine.job import Job
from sdgrpc.engine.options import LoopOptions
from sdgrpc.engine.queueing.phases import Phases
from sdgrpc.engine.queueing.policy import FirstCome, QueuePolicy
from sdgrpc.engine.queueing.turns import Turns
from sdgrpc.engine.supervision.supervisor import Supervisor
from sdgrpc.engine.timing.estimates import Estimates
from sdgrpc.engine.timing.refusals import Door
from sdgrpc.errors import DeadlineTooSoon, SdgrpcError


class JobQueue:
    """Takes jobs in and gives them out in the order of `policy`. Every method is thread safe and quick.

    `changed` guards the `phases`, which the loop's threads move jobs through, and tells of every change.
    """

    def __init__(
        self,
        options: LoopOptions,
        *,
        policy: QueuePolicy | None = None,
        supervisor: Supervisor | None = None,
        estimates: Estimates | None = None,
    ) -> None:
        self.options = options
        self.changed = threading.Condition()
        self.phases = Phases()
        self.closing = False
        self._draining = False
        self._supervisor = supervisor or Supervisor()
        self._door = Door(options, estimates or Estimates())
        self._policy = policy or FirstCome(Turns(options.max_running_jobs_per_token))
        self._policy.on_change = self._wake

    def check_room(self, caller: str = "", *, ahead: int = 0, ahead_of_caller: int = 0) -> None:
        """Raise EngineFailed, Draining, QueueFull or TokenQueueFull if no job of `caller` is taken now."""
        self._supervisor.check()
        with self.changed:
            self._door.check_room(
                self.phases,
                caller,
                draining=self._draining,
                ahead=ahead,
                ahead_of_caller=ahead_of_caller,
            )

    def submit(self, job: Job) -> int:
        """Queue `job` and return how many wait before it; raises as `check_room`, and DeadlineTooSoon."""
        self._supervisor.check()
        with self.changed:
            self._door.check_room(self.phases, job.task.caller, draining=self._draining)
            self.phases.queued.append(job)
            place = self._policy.place(self.phases.queued, job)
            try:
                self._door.check_deadline(job, self.phases, place)
            except DeadlineTooSoon:
                self.phases.queued.remove(job)
                raise
            self.changed.notify_all()
            return place

    def counts(self) -> tuple[int, int, int]:
        """Return the numbers of jobs that run, wait, and have finished for clients since the start."""
        with self.changed:
            return self.phases.running, len(self.phases.queued), self._door.turnover.jobs

    def sets_wanted(self) -> tuple[str, ...]:
        """Return the ids of the LoRA sets of jobs that wait or are prepared, the oldest job's first."""
        with self.changed:
            jobs = [*self.phases.preparing.values(), *self.phases.queued]
        return tuple(dict.fromkeys(job.set_id for job in jobs if job.set_id))

    def jobs(self) -> tuple[Job, ...]:
        """Return every job that has not ended."""
        with self.changed:
            return tuple(self.phases.all)

    def estimated_wait(self) -> float:
        """Return the seconds until a job sent now would begin, as far as recent jobs tell."""
        with self.changed:
            return self._door.estimated_wait(self.phases)

    def next_job(self) -> Job | None:
        """Wait until a job may begin and return it, being prepared; None once the loop closes.

        A job that steps already and has another LoRA set to come goes first: it holds what others wait for.
        """
        with self.changed:
            while not self.closing:
                if (stepping := self.phases.ahead.take()) is not None:
                    return stepping
                room = len(self.phases.stepping) < self.options.max_running_jobs
                job = self._policy.choose(self.phases.queued, room=room)
                if job is not None:
                    self.phases.begin(job)
                    return job
                self.changed.wait()
        return None

    def leave(self, job: Job) -> None:
        """Let others begin in the place of a job that has ended; its model must be free."""
        with self.changed:
            self._policy.leave(job)
            self.changed.notify_all()

    def note_finished(self, seconds: float, *, counted: bool) -> None:
        """Learn how long a job took from its beginning to its end; `counted` if it was a client's."""
        with self.changed:
            self._door.turnover.note(seconds, counted=counted)

    def wait_idle(self) -> None:
        """Take no new jobs and block until the last one has ended."""
        with self.changed:
            self._draining = True
            self.changed.wait_for(lambda: self.closing or not self.phases.all)

    def drop_all(self, error: SdgrpcError, *, tell: bool = True) -> list[Job]:
        """End every stream, begin nothing more, and return the jobs. Needs the lock to `tell` the threads."""
        self._draining = self.closing = True
        jobs = self.phases.end_all(error)
        if tell:
            self.changed.notify_all()
        return jobs

    def _wake(self) -> None:
        with self.changed:
            self.changed.notify_all()
