"""A runner under supervision: each of its calls is watched, and its UNet calls and decodings are measured."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace

from sdgrpc.engine.job import Job
from sdgrpc.engine.queueing.decodes_first import DecodesFirst
from sdgrpc.engine.supervision.call_times import CallShape
from sdgrpc.engine.supervision.supervisor import Supervisor
from sdgrpc.engine.timing.estimates import Estimates
from sdgrpc.engine.unet_calls import Runner
from sdgrpc.errors import ModelError, SdgrpcError

UPSCALING_PATIENCE = 10.0
logger = logging.getLogger(__name__)


class SupervisedRunner:
    """Does what `runner` does; a model whose first step fails is named. Implements Runner.

    Where steps and decoding share the processor's cores, decoding goes first.
    """

    def __init__(self, runner: Runner, supervisor: Supervisor, estimates: Estimates) -> None:
        self._runner, self._supervisor, self._estimates = runner, supervisor, estimates
        self._stepped: set[str] = set()  # the models that did; the step thread's alone
        self._decodes = DecodesFirst()

    def prepare(self, job: Job) -> bool:
        """See `Runner.prepare`."""
        with self._supervisor.call(_shape("prepare", job, 1 + len(job.task.loras))):
            return self._runner.prepare(job)

    def prepare_next(self, job: Job) -> None:
        """See `Runner.prepare_next`."""
        with self._supervisor.call(_shape("prepare", job, 1 + len(job.task.loras))):
            self._runner.prepare_next(job)

    def predict(self, jobs: Sequence[Job], max_rows: int) -> Sequence[object]:
        """See `Predictor.predict`."""
        if jobs[0].shares_cores:
            self._decodes.wait()  # which is no part of the call: neither watched nor measured
        size = jobs[0].size
        rows = sum(job.rows for job in jobs)
        began = time.monotonic()
        try:
            with self._supervisor.call(CallShape("predict", size.model, (rows, *size.shape))):
                answers = self._runner.predict(jobs, max_rows)
        except SdgrpcError:
            raise
        except Exception as error:
            if size.model in self._stepped:
                raise
            logger.exception("model %s failed its first step", size.model)
            raise first_step_failed(size.model) from error
        self._stepped.add(size.model)
        if rows <= max_rows:
            self._estimates.called(jobs[0].current, rows, time.monotonic() - began, jobs[0].call_bytes)
        return answers

    def advance(self, job: Job, prediction: object) -> bool:
        """See `Runner.advance`."""
        with self._supervisor.call(_shape("advance", job, job.task.sampling.image_count)):
            done = self._runner.advance(job, prediction)
        if done and job.shares_cores and not job.follows:
            self._decodes.expect()
        return done

    def follow(self, job: Job, beat: Callable[[], None] = lambda: None) -> bool:
        """See `Runner.follow`."""
        with self._supervisor.call(_following(job)) as alive:

            def both() -> None:
                alive()
                beat()

            return self._runner.follow(job, both)

    def finish(self, job: Job) -> None:
        """See `Runner.finish`."""
        with self._decodes.decoding() if job.shares_cores else nullcontext():
            began = time.monotonic()
            with self._supervisor.call(_shape("finish", job, job.task.sampling.image_count)):
                self._runner.finish(job)
            spent = time.monotonic() - began
        if not job.unwanted:
            self._estimates.finished(job.task, spent)


def first_step_failed(model: str) -> ModelError:
    """What jobs of a model end with that never worked, for a reason that no error of ours tells."""
    return ModelError(f"the model {model!r} failed its first step; the server's log says why")


def _following(job: Job) -> CallShape:
    """What comes between two passes; an upscaler gives a sign of life with each tile alone."""
    second, shape = job.task.second_pass, _shape("follow", job, job.task.sampling.image_count)
    upscales = second is not None and second.upscaler
    return replace(shape, verb="upscale and follow", patience=UPSCALING_PATIENCE) if upscales else shape


def _shape(verb: str, job: Job, count: int) -> CallShape:
    task = job.current
    return CallShape(verb, task.model, (count, task.width, task.height))
