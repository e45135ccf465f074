"""One task on its way through the engine."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from sdgrpc.domain import Finished, Prepared, Progress, Task
from sdgrpc.engine.observing.observer import UNOBSERVED, JobObserver
from sdgrpc.engine.stream import EventStream, RenderPreviews

Clock = Callable[[], float]


class CallSize(NamedTuple):
    """What decides how much memory a row of a UNet call takes: the model, and the shapes that it is given."""

    model: str = ""
    shape: tuple[int, ...] = ()


UNSIZED = CallSize()


class Unwanted(Exception):
    """Ends the work on a job that was cancelled or is late; nobody is told."""


class JobWork(Protocol):
    """What a runner holds for a job: the loop keeps it with the job, lets go of it, and looks at nothing."""

    def close(self) -> None:
        """Let go of tensors and of the LoRA set. Called once."""
        ...


@dataclass(slots=True)
class Times:
    """When a job entered each phase, in seconds of the engine's clock; 0 until it did."""

    submitted: float
    preparing: float = 0.0
    prepared: float = 0.0
    stepping: float = 0.0
    denoised: float = 0.0


@dataclass(eq=False, slots=True)
class Job:
    """One task's state. One thread at a time works on it; only `cancelled` is set from outside.

    `deadline` is a time of the clock, after which nobody waits for the pictures; None waits for ever.

    `call_bytes` is the memory that its last UNet call took beside the weights; 0 where that is not measured.
    It `shares_cores` where its steps are computed by the processor, as decoding is.

    Once it has `begun` it steps. With `has_next_set` its steps come to another LoRA set, which can be made
    now, and with `waits_for_set` it cannot go on without; `failure` is what went wrong with one. A job that
    `tells_prepared` does so itself, once its set begins.

    `set_id` names its first LoRA set; `observer` is told what happens to it.

    `pass_index` is the pass it is in, from 0.

    `work` is the runner's: the generator of docs/architecture.md, and what it runs on. A job that is not
    `counted` is the engine's own: the status does not tell of it once it has finished. With
    `whole_calls_fail` its rows do not fit into one call, as far as it has tried.
    """

    job_id: int
    task: Task
    stream: EventStream
    clock: Clock = time.monotonic
    work: JobWork | None = None
    counted: bool = True
    begun: bool = False
    has_next_set: bool = False
    waits_for_set: bool = False
    tells_prepared: bool = False
    failure: BaseException | None = None
    observer: JobObserver = UNOBSERVED
    set_id: str = ""
    deadline: float | None = None
    cancelled: bool = False
    steps_done: int = 0
    pass_index: int = 0
    whole_calls_fail: bool = False
    group: Hashable = None
    size: CallSize = UNSIZED
    rows: int = 0
    largest_batch: int = 0
    unet_calls: int = 0
    call_bytes: int = 0
    shares_cores: bool = False
    report: Prepared = field(default_factory=Prepared)
    times: Times = field(init=False)

    def __post_init__(self) -> None:
        self.times = Times(submitted=self.clock())

    @property
    def steps_left(self) -> int:
        """The steps that are still to be run."""
        return self.task.step_count - self.steps_done

    @property
    def current(self) -> Task:
        """The pass it is in, as a task of its own."""
        return self.task.passes[self.pass_index]

    @property
    def follows(self) -> bool:
        """Whether another pass comes after this one."""
        return self.pass_index + 1 < len(self.task.passes)

    @property
    def is_late(self) -> bool:
        """Whether its deadline has passed."""
        return self.deadline is not None and self.clock() >= self.deadline

    @property
    def unwanted(self) -> bool:
        """Whether to do nothing more for it: it was cancelled, is late, or a set of its steps failed."""
        return self.cancelled or self.is_late or self.failure is not None

    def seconds_left(self) -> float | None:
        """Return how long it is until the deadline; None without one."""
        return None if self.deadline is None else self.deadline - self.clock()

    def check_wanted(self) -> None:
        """Raise Unwanted if nothing more should be done for it."""
        if self.unwanted:
            raise Unwanted

    def progress(self, step: int, step_count: int, timestep: float, render: RenderPreviews) -> None:
        """Report a finished step; `render` runs if the task wants previews and somebody reads them."""
        elapsed = self.clock() - (self.times.stepping or self.clock())
        remaining = elapsed / self._work(step) * (self._work(step_count) - self._work(step))
        event = Progress(step, step_count, timestep, elapsed, remaining, pass_number=self.pass_index + 1)
        self.steps_done = step
        self.observer.stepped(step)
        self.stream.put(event, render if self.wants_preview(step, step_count) else None)

    def _work(self, steps: int) -> float:
        """What the first steps of all passes take, in steps of the first: in proportion to their pixels."""
        if len(self.task.passes) == 1:
            return steps
        work, left = 0.0, steps
        for each in self.task.passes:
            taken = min(each.step_count, left)
            work += taken * each.width * each.height / (self.task.width * self.task.height)
            left -= taken
        return work

    def wants_preview(self, step: int, step_count: int) -> bool:
        """Tell whether a preview belongs to this step; the last has none, since the image follows."""
        options = self.task.output.preview
        asked = options.kind.value != "none"
        return asked and step < step_count and step % max(options.every_n_steps, 1) == 0

    def finished(self) -> Finished:
        """Say where the time went."""
        times, now = self.times, self.clock()
        return Finished(
            queued_seconds=times.preparing - times.submitted,
            prepared_seconds=times.prepared - times.preparing,
            denoised_seconds=times.denoised - times.prepared,
            decoded_seconds=now - times.denoised,
            largest_batch=self.largest_batch,
            unet_calls=self.unet_calls,
        )

    def tell_end(self, error: BaseException | None) -> None:
        """Tell the observer how it ended, once."""
        observer, self.observer = self.observer, UNOBSERVED
        observer.ended(error, self.stream.previews_dropped)

    def close(self) -> None:
        """Let go of tensors and of the LoRA set. May be called twice."""
        work, self.work = self.work, None
        if work is not None:
            work.close()
