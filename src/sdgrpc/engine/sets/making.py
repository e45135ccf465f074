"""The next LoRA sets of jobs that step, made on the preparing thread. No torch here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future

from sdgrpc.engine.job import Job, Unwanted
from sdgrpc.engine.queueing.queue import JobQueue
from sdgrpc.engine.scheduler import StepScheduler
from sdgrpc.engine.unet_calls import Runner
from sdgrpc.lora.store.contents import FoundLora


class NextSets:
    """Has the next sets of jobs made, and has the scheduler pass those by that wait for one.

    `judged` turns what went wrong into what a job is ended with.
    """

    def __init__(
        self,
        runner: Runner,
        queue: JobQueue,
        scheduler: StepScheduler,
        judged: Callable[[Job, BaseException], BaseException],
    ) -> None:
        self._runner, self._queue, self._scheduler, self._judged = runner, queue, scheduler, judged

    def expect(self, job: Job, files: Future[Sequence[FoundLora]]) -> None:
        """Let a job begin before the files of its next set are found; call it before the job is queued."""
        with self._queue.changed:
            self._queue.phases.ahead.expect(job)

        def come(_: object) -> None:
            with self._queue.changed:
                self._queue.phases.ahead.come(job, steps=job.job_id in self._queue.phases.stepping)
                self._queue.changed.notify_all()

        files.add_done_callback(come)

    def look_ahead(self, job: Job) -> None:
        """Note what a job that was just advanced needs. Needs the queue's lock."""
        if job.has_next_set:
            self._queue.phases.ahead.want(job)
            self._queue.changed.notify_all()
        if job.waits_for_set:
            self._scheduler.pause(job.job_id)
            self._queue.phases.ahead.wait(job)

    def make(self, job: Job) -> tuple[bool, BaseException | None]:
        """Make the next set of a job; should that fail, the step thread ends the job.

        Return whether the caller is to end it, and by which error: others wanted to meanwhile.
        """
        failure = None
        try:
            job.check_wanted()
            self._runner.prepare_next(job)
        except BaseException as error:  # whatever it was, it must be told
            failure = None if isinstance(error, Unwanted) else self._judged(job, error)
        with self._queue.changed:
            job.failure = failure
            self._queue.changed.notify_all()
            return self._queue.phases.ahead.made()
