"""What the engine tells whoever watches it. Nothing here knows metrics, logs or traces.

An observer is told from the engine's threads, so it must be quick and never block.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from time import monotonic

from sdgrpc.domain import Task


class Stage(StrEnum):
    """What a job's time goes to. `READ` is of LoRA files that were not known yet."""

    QUEUED = "queued"
    READ = "read"
    FUSED = "fused"
    ENCODED = "encoded"
    DENOISED = "denoised"
    DECODED = "decoded"
    SENT = "sent"


@dataclass(frozen=True, slots=True)
class SharedCall:
    """One call of the UNet that advanced `jobs` jobs of a model with `rows` rows, and took `seconds`."""

    model: str
    jobs: int
    rows: int
    seconds: float


class JobObserver:
    """Follows one job; this one does nothing with what it is told."""

    def took(self, stage: Stage, seconds: float) -> None:
        """Take note that a stage ended just now, `seconds` after it began."""

    def read_ahead(self, files: int) -> None:
        """Take note that so many files of a set that is being made had been read while the job waited."""

    def stepped(self, step: int) -> None:
        """Take note that a step, from 1, is done."""

    def drew(self, width: int, height: int) -> None:
        """Take note that an image is in the job's stream."""

    def out_of_memory(self) -> None:
        """Take note that the device's memory did not suffice for something of the job."""

    def ended(self, error: BaseException | None, previews_dropped: int) -> None:
        """Take note of the end: by an error, or drawn, or dropped since nobody waits for it.

        Of the previews some were never rendered, since the next came before anybody read them.
        """

    @contextmanager
    def stage(self, stage: Stage) -> Iterator[None]:
        """Measure a block, however it ends, as a stage."""
        began = monotonic()
        try:
            yield
        finally:
            self.took(stage, monotonic() - began)


UNOBSERVED = JobObserver()


class Observer:
    """Watches an engine; this one does nothing with what it is told."""

    def begin(self, task: Task) -> JobObserver:
        """Return who follows the job of a task; called on the event loop, in the call that asked for it."""
        del task
        return UNOBSERVED

    def called(self, call: SharedCall, jobs: Sequence[JobObserver]) -> None:
        """Take note of a UNet call that returned just now, and of who follows the jobs that shared it."""
