"""The engine's threads: one prepares jobs, one runs their steps, a few finish them. No torch here.

The step loop is three verbs: choose the jobs of the next call, run it, settle what came back. Preparing
(fusing a LoRA set, encoding a prompt) and finishing (the VAE, the image file) happen beside it, so that
neither stops the steps of other jobs.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from sdgrpc.engine.admission import Admission, FirstCome, Turns, check_share
from sdgrpc.engine.calls import Calls, Runner
from sdgrpc.engine.job import Clock, Job
from sdgrpc.engine.limits import RowLimits
from sdgrpc.engine.meter import Meter, Turnover
from sdgrpc.engine.options import LoopOptions
from sdgrpc.engine.scheduler import StepScheduler
from sdgrpc.errors import Draining, QueueFull

logger = logging.getLogger(__name__)


class EngineLoop:
    """Takes jobs in, runs them on `runner`, ends their streams. Every method is thread safe and quick."""

    def __init__(
        self,
        runner: Runner,
        options: LoopOptions,
        *,
        admission: Admission | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        self.options = options
        self._admission: Admission = admission or FirstCome(Turns(options.max_running_jobs_per_token))
        self.meter = Meter(clock=clock)
        self._runner = runner
        self._clock = clock
        self._changed = threading.Condition()
        self._queued: deque[Job] = deque()
        self._preparing: dict[int, Job] = {}
        self._stepping: dict[int, Job] = {}  # exactly those that the scheduler knows
        self._finishing: dict[int, Job] = {}
        self._phases = (self._preparing, self._stepping, self._finishing)
        limits = RowLimits(options.max_rows_per_call, options.rows_by_model)
        self._calls = Calls(runner, limits, self.meter)
        self._scheduler = StepScheduler(
            max_rows=limits.of, patience=options.max_wait_calls, batching=options.batching
        )
        self._draining = self._closing = False
        self._turnover = Turnover()
        self._finisher = ThreadPoolExecutor(max_workers=2, thread_name_prefix="sdgrpc-finish")
        self._threads = [
            threading.Thread(target=target, name=name, daemon=True)
            for target, name in ((self._prepare_jobs, "sdgrpc-prepare"), (self._step_jobs, "sdgrpc-step"))
        ]
        self._admission.on_change = self._wake
        for thread in self._threads:
            thread.start()

    # What the event loop calls.

    def check_room(self, caller: str = "") -> None:
        """Raise Draining, QueueFull or TokenQueueFull if a job of `caller` would not be taken now."""
        with self._changed:
            self._check_room(caller)

    def submit(self, job: Job) -> int:
        """Queue `job` and return how many jobs wait before it."""
        with self._changed:
            self._check_room(job.task.caller)
            self._queued.append(job)
            self._changed.notify_all()
            return self._admission.place(self._queued, job)

    def cancel(self, job: Job) -> None:
        """Drop `job` before its next step; one that ended already is left alone."""
        with self._changed:
            job.cancelled = True
            waiting = job in self._queued
            if waiting:
                self._queued.remove(job)
            self._changed.notify_all()
        if waiting:
            self._end(job)

    def counts(self) -> tuple[int, int, int]:
        """Return the numbers of jobs that run, wait, and have finished for clients since the start."""
        with self._changed:
            return sum(map(len, self._phases)), len(self._queued), self._turnover.jobs

    def estimated_wait(self) -> float:
        """Return the seconds until a job sent now would begin, as far as recent jobs tell."""
        with self._changed:
            stepping = len(self._stepping)
            if not self._queued and stepping < self.options.max_running_jobs:
                return 0.0
            return self._turnover.mean_seconds * (len(self._queued) + 1) / max(stepping, 1)

    def wait_idle(self) -> None:
        """Take no new jobs and block until the last one has ended."""
        with self._changed:
            self._draining = True
            self._changed.wait_for(lambda: self._closing or not (self._queued or any(self._phases)))

    def close(self) -> None:
        """Drop every job and stop the threads; blocks until the running calls return. May be called twice."""
        with self._changed:
            self._draining = self._closing = True
            jobs = [*self._queued, *(job for phase in self._phases for job in phase.values())]
            self._queued.clear()
            for job in jobs:
                job.stream.end(Draining("the server stopped before this job ended; send it to another"))
                job.cancelled = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()
        self._finisher.shutdown()
        for job in jobs:
            self._end(job)

    def _check_room(self, caller: str) -> None:
        if self._draining:
            raise Draining("the server is stopping; send the job to another", retry_after=1.0)
        if len(self._queued) >= self.options.queue_size:
            raise QueueFull(
                f"{len(self._queued)} jobs wait already (queue_size); try again later or on another server",
                retry_after=max(1.0, self._turnover.mean_seconds * len(self._queued) / 2),
            )
        most, seconds = self.options.max_queued_jobs_per_token, max(1.0, self._turnover.mean_seconds)
        check_share(self._queued, caller, most, retry_after=seconds)

    # The preparing thread.

    def _prepare_jobs(self) -> None:
        while (job := self._next_queued()) is not None:
            self._guarded(job, self._prepare)

    def _next_queued(self) -> Job | None:
        with self._changed:
            while not self._closing:
                room = len(self._stepping) < self.options.max_running_jobs
                job = self._admission.choose(self._queued, room=room)
                if job is not None:
                    self._queued.remove(job)
                    self._preparing[job.job_id] = job
                    return job
                self._changed.wait()
        return None

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _prepare(self, job: Job) -> None:
        job.times.preparing = self._clock()
        done = self._runner.prepare(job)
        job.times.prepared = job.times.stepping = self._clock()
        if job.cancelled:
            self._end(job)
            return
        job.stream.put(job.report)
        if done:
            self._hand_to_finisher(job)
            return
        with self._changed:
            del self._preparing[job.job_id]
            self._stepping[job.job_id] = job
            self._scheduler.add(job.job_id, job.group, job.rows, job.size)
            self._changed.notify_all()

    # The step thread.

    def _step_jobs(self) -> None:
        while (batch := self._choose()) is not None:
            if batch:
                self._run(batch)

    def _choose(self) -> list[Job] | None:
        with self._changed:
            self._changed.wait_for(lambda: self._closing or len(self._scheduler))
            if self._closing:
                return None
            dropped = [job for job in self._stepping.values() if job.cancelled]
            for job in dropped:
                self._forget(job)
            batch = [self._stepping[job_id] for job_id in self._scheduler.next_batch()]
        for job in dropped:
            self._end(job)
        return batch

    def _run(self, batch: list[Job]) -> None:
        for job, answer in self._calls.evaluate(batch):
            if isinstance(answer, Exception):
                self._end(job, answer)
            else:
                self._guarded(job, self._settle, answer)

    def _settle(self, job: Job, prediction: object) -> None:
        if job.cancelled:
            self._end(job)
        elif self._runner.advance(job, prediction):
            self._hand_to_finisher(job)

    # Finishing.

    def _hand_to_finisher(self, job: Job) -> None:
        with self._changed:
            self._forget(job)
            self._finishing[job.job_id] = job
            self._changed.notify_all()
        job.times.denoised = self._clock()
        self._finisher.submit(self._guarded, job, self._finish)

    def _finish(self, job: Job) -> None:
        if not job.cancelled:
            self._runner.finish(job)
        if not job.cancelled:
            job.stream.put(job.finished())
            with self._changed:
                self._turnover.note(self._clock() - job.times.preparing, counted=job.counted)
        self._end(job)

    def _guarded(self, job: Job, work: Callable[..., None], *arguments: object) -> None:
        """Let a failure end its own job and nothing else."""
        try:
            work(job, *arguments)
        except Exception as error:  # whatever it was, the thread must live on
            self._end(job, error)

    def _end(self, job: Job, error: BaseException | None = None) -> None:
        with self._changed:
            self._forget(job)
        job.close()
        with self._changed:  # only now is its model free
            self._admission.leave(job)
            self._changed.notify_all()
        job.stream.end(error)

    def _forget(self, job: Job) -> None:
        self._scheduler.remove(job.job_id)
        for phase in self._phases:
            phase.pop(job.job_id, None)
