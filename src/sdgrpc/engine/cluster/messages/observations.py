"""What a replica's engine tells its observers, on its way to those of the front door."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass

from sdgrpc.domain import Task
from sdgrpc.engine.cluster.messages.carrying import Carried
from sdgrpc.engine.observing.observer import UNOBSERVED, JobObserver, Observer, SharedCall, Stage


@dataclass(frozen=True, slots=True)
class Took:
    """See `JobObserver.took`."""

    stage: Stage
    seconds: float


@dataclass(frozen=True, slots=True)
class ReadAhead:
    """See `JobObserver.read_ahead`."""

    files: int


@dataclass(frozen=True, slots=True)
class Stepped:
    """See `JobObserver.stepped`."""

    step: int


@dataclass(frozen=True, slots=True)
class Drew:
    """See `JobObserver.drew`."""

    width: int
    height: int


@dataclass(frozen=True, slots=True)
class RanOut:
    """See `JobObserver.out_of_memory`."""


@dataclass(frozen=True, slots=True)
class Ended:
    """See `JobObserver.ended`."""

    error: Carried | None
    previews_dropped: int


@dataclass(frozen=True, slots=True)
class Called:
    """See `Observer.called`; the jobs that shared the call, by their numbers."""

    call: SharedCall
    jobs: tuple[str, ...]


Observation = Took | ReadAhead | Stepped | Drew | RanOut | Ended | Called
Note = Callable[[Observation], None]

FOLLOWED: ContextVar[tuple[str, Note] | None] = ContextVar("followed", default=None)
"""The number of the job that the running asyncio task draws, and where its observations go."""


class Recorded(JobObserver):
    """Notes what one job does."""

    def __init__(self, number: str, note: Note) -> None:
        self.number, self.note = number, note

    def took(self, stage: Stage, seconds: float) -> None:
        """See `JobObserver.took`."""
        self.note(Took(stage, seconds))

    def read_ahead(self, files: int) -> None:
        """See `JobObserver.read_ahead`."""
        self.note(ReadAhead(files))

    def stepped(self, step: int) -> None:
        """See `JobObserver.stepped`."""
        self.note(Stepped(step))

    def drew(self, width: int, height: int) -> None:
        """See `JobObserver.drew`."""
        self.note(Drew(width, height))

    def out_of_memory(self) -> None:
        """See `JobObserver.out_of_memory`."""
        self.note(RanOut())

    def ended(self, error: BaseException | None, previews_dropped: int) -> None:
        """See `JobObserver.ended`."""
        self.note(Ended(None if error is None else Carried.of(error), previews_dropped))


class Recorder(Observer):
    """Notes what the engine of a replica does, each job's with the job's events."""

    def begin(self, task: Task) -> JobObserver:
        """See `Observer.begin`; of jobs that no front door asked for, as a warm-up, nothing is noted."""
        del task
        followed = FOLLOWED.get()
        return UNOBSERVED if followed is None else Recorded(*followed)

    def called(self, call: SharedCall, jobs: Sequence[JobObserver]) -> None:
        """See `Observer.called`: noted once, with the first of the jobs."""
        recorded = [job for job in jobs if isinstance(job, Recorded)]
        if recorded:
            recorded[0].note(Called(call, tuple(job.number for job in recorded)))


def tell(
    observation: Observation, job: JobObserver, every: Observer, jobs: Mapping[str, JobObserver]
) -> None:
    """Tell the front door's observers what one of a replica was told.

    Args:
        observation: what happened.
        job: who follows the job with whose events it came.
        every: who watches the whole engine.
        jobs: who follows each job that runs, by its number.

    """
    match observation:
        case Took():
            job.took(observation.stage, observation.seconds)
        case ReadAhead():
            job.read_ahead(observation.files)
        case Stepped():
            job.stepped(observation.step)
        case Drew():
            job.drew(observation.width, observation.height)
        case RanOut():
            job.out_of_memory()
        case Ended():
            error = None if observation.error is None else observation.error.error()
            job.ended(error, observation.previews_dropped)
        case Called():
            every.called(observation.call, [jobs[number] for number in observation.jobs if number in jobs])
