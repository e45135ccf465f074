"""The engine's threads: `sdgrpc-prepare`, `sdgrpc-step` and two `sdgrpc-finish`. No torch here.

The step loop is three verbs: choose the jobs of the next call, run it, settle what came back. Preparing
(fusing a LoRA set, encoding a prompt) and finishing (the VAE, the image file) happen beside it, so that
neither stops the steps of other jobs.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from sdgrpc.domain import Prepared
from sdgrpc.engine.job import Clock, Job, Unwanted
from sdgrpc.engine.limits import RowLimits
from sdgrpc.engine.observing.observer import Observer, Stage
from sdgrpc.engine.options import LoopOptions
from sdgrpc.engine.queueing.policy import QueuePolicy
from sdgrpc.engine.queueing.queue import JobQueue
from sdgrpc.engine.scheduler import Rest, StepScheduler
from sdgrpc.engine.sets.making import NextSets
from sdgrpc.engine.supervision.supervisor import Supervisor
from sdgrpc.engine.timing.estimates import Estimates
from sdgrpc.engine.timing.meter import Meter
from sdgrpc.engine.unet_calls import Calls, Runner
from sdgrpc.errors import DeadlineTooSoon, Draining, OutOfMemory
from sdgrpc.machine.standing_back import stand_back

LOCK_SECONDS = 0.2  # a failed engine's jobs are ended after that, whoever holds the lock


class EngineLoop:
    """Runs the jobs of its `queue` on `runner`, ends their streams. Every method is thread safe and quick."""

    def __init__(
        self,
        runner: Runner,
        options: LoopOptions,
        *,
        policy: QueuePolicy | None = None,
        supervisor: Supervisor | None = None,
        estimates: Estimates | None = None,
        observer: Observer | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        self._supervisor = supervisor or Supervisor()
        self._estimates = estimates or Estimates()
        self.queue = JobQueue(options, policy=policy, supervisor=self._supervisor, estimates=self._estimates)
        self.meter = Meter(clock=clock)
        self._runner = runner
        self._clock = clock
        self._changed, self._phases = self.queue.changed, self.queue.phases
        limits = RowLimits(options.max_rows_per_call, options.rows_by_model)
        self._calls = Calls(runner, limits, self.meter, observer or Observer())
        patience, batching = options.max_wait_calls, options.batching
        self._scheduler = StepScheduler(
            max_rows=limits.of, patience=patience, batching=batching, order=options.next_call
        )
        self.next_sets = NextSets(runner, self.queue, self._scheduler, self._judged)
        self._finisher = ThreadPoolExecutor(max_workers=2, thread_name_prefix="sdgrpc-finish")
        self._threads = [
            self._supervisor.thread("sdgrpc-prepare", self._prepare_jobs),
            self._supervisor.thread("sdgrpc-step", self._step_jobs),
        ]
        self._supervisor.on_failure(self._fail)
        for thread in self._threads:
            thread.start()

    # What the event loop calls.

    def cancel(self, job: Job) -> None:
        """Drop `job` before its next step; one that ended already is left alone."""
        with self._changed:
            job.cancelled = True
            waiting = self._phases.leave_queue(job)
            self._changed.notify_all()
        if waiting:
            self._end(job)

    def close(self) -> None:
        """Drop every job and stop the threads. May be called twice.

        Blocks until the running calls return; of a failed engine, whose calls may never, it waits for none.
        """
        with self._changed:
            stopped = Draining("the server stopped before this job ended; send it to another")
            jobs = self.queue.drop_all(stopped)
        ended = self._supervisor.join(self._threads)
        self._finisher.shutdown(wait=ended)
        for job in jobs if ended else ():
            self._end(job)

    def _fail(self) -> None:
        """End every job, since the engine cannot go on; whoever hangs may hold the lock for good."""
        held = self._changed.acquire(timeout=LOCK_SECONDS)
        self.queue.drop_all(self._supervisor.error(), tell=held)
        if held:
            self._changed.release()

    # The preparing thread.

    def _prepare_jobs(self) -> None:
        stand_back()
        while (job := self.queue.next_job()) is not None:
            if not job.begun:
                self._guarded(job, self._prepare)
                continue
            ends, reason = self.next_sets.make(job)
            if ends:
                self._end(job, reason)

    def _prepare(self, job: Job) -> None:
        job.times.preparing = self._clock()
        job.observer.took(Stage.QUEUED, job.times.preparing - job.times.submitted)
        job.check_wanted()
        done = self._runner.prepare(job)
        job.times.prepared = job.times.stepping = self._clock()
        job.check_wanted()
        if done:
            job.stream.put(job.report)
            self._hand_to_finisher(job)
            return
        self._begin_steps(job, *([] if job.tells_prepared else [job.report]))

    def _begin_steps(self, job: Job, *events: Prepared) -> None:
        rest = self._rest(job)
        with self._changed:  # whoever reads that it is prepared may count on the next call
            for event in events:
                job.stream.put(event)
            job.begun = True
            self._phases.step(job)
            self._scheduler.add(job.job_id, job.group, job.rows, job.size, rest)
            self.next_sets.look_ahead(job)
            self._changed.notify_all()

    # The step thread.

    def _step_jobs(self) -> None:
        while (batch := self._choose()) is not None:
            if batch:
                self._run(batch)

    def _choose(self) -> list[Job] | None:
        with self._changed:
            self._changed.wait_for(
                lambda: self.queue.closing or len(self._scheduler) or self._phases.has_awake
            )
            if self.queue.closing:
                return None
            dropped = [job for job in self._phases.stepping.values() if job.unwanted]
            for job in dropped:
                self._forget(job)
            awake = self._phases.ahead.awake()
            chosen = [] if awake else self._scheduler.next_batch(self._clock())
            batch = [self._phases.stepping[job_id] for job_id in chosen]
        for job in dropped:
            self._drop(job)
        for job in awake:
            self._guarded(job, self._settle, None)
        return batch

    def _run(self, batch: list[Job]) -> None:
        for job, answer in self._calls.evaluate(batch):
            if isinstance(answer, Exception):
                self._end(job, answer)
            else:
                self._guarded(job, self._settle, answer)

    def _settle(self, job: Job, prediction: object) -> None:
        job.check_wanted()
        if self._runner.advance(job, prediction):
            self._hand_to_finisher(job)
            return
        rest = self._rest(job)
        with self._changed:  # guided steps have other rows than those that are not
            self._scheduler.resume(job.job_id)  # if it had waited for a set
            self._scheduler.update(job.job_id, job.group, job.rows, job.size, rest)
            self.next_sets.look_ahead(job)

    def _rest(self, job: Job) -> Rest:
        """What is left of a job that steps, as far as measured calls tell."""
        deadline = math.inf if job.deadline is None else job.deadline
        return Rest(self._estimates.left(job.task, job.steps_left), deadline)

    # Finishing.

    def _hand_to_finisher(self, job: Job) -> None:
        with self._changed:
            self._scheduler.remove(job.job_id)
            self._phases.finish(job)
            self._changed.notify_all()
        if job.follows:
            self._finisher.submit(self._guarded, job, self._follow)
            return
        job.times.denoised = self._clock()
        job.observer.took(Stage.DENOISED, job.times.denoised - job.times.prepared)
        self._finisher.submit(self._guarded, job, self._finish)

    def _follow(self, job: Job) -> None:
        """Begin with the next pass: the VAE's work for it is no step's, and holds up none."""
        job.check_wanted()
        if self._runner.follow(job):
            self._hand_to_finisher(job)
        else:
            self._begin_steps(job)

    def _finish(self, job: Job) -> None:
        job.check_wanted()
        with job.observer.stage(Stage.DECODED):
            self._runner.finish(job)
        job.check_wanted()
        job.stream.put(job.finished())
        self.queue.note_finished(self._clock() - job.times.preparing, counted=job.counted)
        self._end(job)

    def _guarded(self, job: Job, work: Callable[..., None], *arguments: object) -> None:
        """Let a failure end its own job and nothing else, unless the engine cannot go on after it."""
        try:
            work(job, *arguments)
        except Unwanted:
            self._drop(job)
        except BaseException as error:  # whatever it was, it must be told
            self._end(job, self._judged(job, error))

    def _judged(self, job: Job, error: BaseException) -> BaseException:
        judged = self._supervisor.judged(error)
        if isinstance(judged, OutOfMemory):
            job.observer.out_of_memory()
        return judged

    def _drop(self, job: Job) -> None:
        """End a job that nobody waits for any more."""
        late = "the deadline passed before the job was drawn; allow more time"
        self._end(job, job.failure or (DeadlineTooSoon(late) if job.is_late else None))

    def _end(self, job: Job, error: BaseException | None = None) -> None:
        with self._changed:
            self._forget(job)
            if self._phases.ahead.end_later(job, error):
                return
        job.close()
        self.queue.leave(job)  # only now is its model free
        job.tell_end(error)
        job.stream.end(error)

    def _forget(self, job: Job) -> None:
        self._scheduler.remove(job.job_id)
        self._phases.forget(job)
