"""One batch of jobs through the device: smaller where the memory ends, one by one where a job is at fault."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from sdgrpc.engine.job import Job
from sdgrpc.engine.limits import RowLimits
from sdgrpc.engine.observing.observer import Observer, SharedCall
from sdgrpc.engine.timing.meter import Meter
from sdgrpc.errors import OutOfMemory

logger = logging.getLogger(__name__)

Outcome = tuple[Job, object]


class Predictor(Protocol):
    """The part of a runner that evaluates."""

    def predict(self, jobs: Sequence[Job], max_rows: int) -> Sequence[object]:
        """Evaluate what jobs of one group ask; one prediction per job.

        They share one UNet call, unless a single job brings more than `max_rows` rows; then its rows take
        several calls, and with `max_rows` 1 each row has its own.

        Raises:
            OutOfMemory: the device's memory did not suffice; nothing of the attempt is held any more.

        """
        ...


class Runner(Predictor, Protocol):
    """What the loop asks of the device. Each method works for one job at a time but for `predict`."""

    def prepare(self, job: Job) -> bool:
        """Set up the job: group, size, rows, steps, report, release. True if it asks for no prediction."""
        ...

    def prepare_next(self, job: Job) -> None:
        """Make the next LoRA set of a job that `has_next_set`, beside its steps."""
        ...

    def advance(self, job: Job, prediction: object) -> bool:
        """Send the job its prediction and set its next group, size, rows; True once its `result` is there.

        Where it `waits_for_set` it is sent None instead, once that was made.
        """
        ...

    def follow(self, job: Job, beat: Callable[[], None] = ...) -> bool:
        """Begin with the next pass of a job that has done the steps of one; as `prepare`.

        `beat` is a sign of life of what takes long.
        """
        ...

    def finish(self, job: Job) -> None:
        """Decode `result` and put the images into the job's stream."""
        ...


class Calls:
    """Evaluates batches within `limits`, tells `meter` and `observer`. Used by the step thread alone."""

    def __init__(
        self, predictor: Predictor, limits: RowLimits, meter: Meter, observer: Observer | None = None
    ) -> None:
        self._observer = observer or Observer()
        self._predictor = predictor
        self._limits = limits
        self._meter = meter

    def evaluate(self, batch: Sequence[Job]) -> Iterator[Outcome]:
        """Yield every job of a group with its prediction, or with the exception that it alone meets.

        A batch that does not fit into the device's memory is halved until it does, down to a single row, and
        the bound of its size is lowered for later calls. A job that is alone tries once whether it fits as a
        whole all the same, so that it gives the same bytes as ever after a neighbour's memory is free again.
        A shared call that fails otherwise is run again job by job, so that one job's fault does not cost its
        neighbours their pictures.
        """
        waiting, alone = list(batch), len(batch) == 1
        while waiting:
            part = self._first_part(waiting)
            limit = self._limit(part, alone=alone)
            answer = self._attempt(part, limit)
            if isinstance(answer, OutOfMemory) and self._lower_bound(part, limit):
                continue
            waiting = waiting[len(part) :]
            if not isinstance(answer, Exception):
                yield from zip(part, answer, strict=True)
            elif len(part) == 1:
                yield part[0], answer
            else:
                name = type(answer).__name__
                logger.warning("a call of %d jobs failed (%s); running them one by one", len(part), name)
                for job in part:
                    yield from self.evaluate([job])

    def _first_part(self, waiting: Sequence[Job]) -> Sequence[Job]:
        """The first jobs that one call may take; a single one even if it has more rows."""
        limit = self._limits.of(waiting[0].size)
        totals = itertools.accumulate(job.rows for job in waiting)
        return waiting[: max(1, sum(total <= limit for total in totals))]

    def _limit(self, part: Sequence[Job], *, alone: bool) -> int:
        """The most rows of the next call: what was learned, or the operator's bound for a job to try."""
        tries_whole = alone and not part[0].whole_calls_fail
        return self._limits.configured(part[0].size) if tries_whole else self._limits.of(part[0].size)

    def _attempt(self, part: Sequence[Job], limit: int) -> Sequence[object] | Exception:
        began = time.monotonic()
        try:
            predictions = self._predictor.predict(part, limit)
        except Exception as error:  # whatever it was, the step thread must live on
            if isinstance(error, OutOfMemory):
                part[0].observer.out_of_memory()
            return error
        rows = _rows(part, limit)
        self._tell(part, rows, time.monotonic() - began)
        self._limits.succeeded(part[0].size, rows)
        self._meter.record(len(part), rows)
        for job in part:
            job.largest_batch = max(job.largest_batch, len(part))
            job.unet_calls += 1
        return predictions

    def _tell(self, part: Sequence[Job], rows: int, seconds: float) -> None:
        observers = [job.observer for job in part if job.counted]
        if observers:
            call = SharedCall(part[0].task.model, len(part), rows, seconds)
            self._observer.called(call, observers)

    def _lower_bound(self, part: Sequence[Job], limit: int) -> bool:
        """Learn from a call that ran out of memory; False if no smaller one can be tried."""
        size, rows = part[0].size, _rows(part, limit)
        lowered = self._limits.failed(size, rows)
        if len(part) == 1:
            part[0].whole_calls_fail = True
        if lowered:
            logger.warning(
                "out of memory with %d rows of %s for model %s; trying again with at most %d",
                rows,
                "x".join(map(str, size.shape)),
                size.model,
                self._limits.of(size),
            )
        return lowered


def _rows(part: Sequence[Job], limit: int) -> int:
    """Rows of the largest UNet call that a part takes."""
    return min(sum(job.rows for job in part), limit)
