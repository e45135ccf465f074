"""Several observers as one, of which none can hurt the engine."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial

from sdgrpc.domain import Task
from sdgrpc.engine.observing.observer import UNOBSERVED, JobObserver, Observer, SharedCall, Stage

logger = logging.getLogger(__name__)


class JobObservers(JobObserver):
    """Tells all that follow one job."""

    def __init__(self, parts: Sequence[JobObserver]) -> None:
        self.parts = tuple(parts)

    def took(self, stage: Stage, seconds: float) -> None:
        """See `JobObserver.took`."""
        for one in self.parts:
            guarded(partial(one.took, stage, seconds))

    def read_ahead(self, files: int) -> None:
        """See `JobObserver.read_ahead`."""
        for one in self.parts:
            guarded(partial(one.read_ahead, files))

    def stepped(self, step: int) -> None:
        """See `JobObserver.stepped`."""
        for one in self.parts:
            guarded(partial(one.stepped, step))

    def drew(self, width: int, height: int) -> None:
        """See `JobObserver.drew`."""
        for one in self.parts:
            guarded(partial(one.drew, width, height))

    def out_of_memory(self) -> None:
        """See `JobObserver.out_of_memory`."""
        for one in self.parts:
            guarded(one.out_of_memory)

    def ended(self, error: BaseException | None, previews_dropped: int) -> None:
        """See `JobObserver.ended`."""
        for one in self.parts:
            guarded(partial(one.ended, error, previews_dropped))


class Observers(Observer):
    """Tells all that watch an engine. What one of them raises is logged and goes no further."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = tuple(observers)

    def begin(self, task: Task) -> JobObserver:
        """See `Observer.begin`."""
        parts = [UNOBSERVED] * len(self._observers)
        for index, one in enumerate(self._observers):

            def begin(index: int = index, one: Observer = one) -> None:
                parts[index] = one.begin(task)

            guarded(begin)
        return JobObservers(parts)

    def called(self, call: SharedCall, jobs: Sequence[JobObserver]) -> None:
        """See `Observer.called`; each is given those of its own making."""
        followed = [job.parts for job in jobs if isinstance(job, JobObservers)]
        for index, one in enumerate(self._observers):
            parts = [job[index] for job in followed]
            guarded(partial(one.called, call, parts))


def guarded(tell: Callable[[], None]) -> None:
    """Tell an observer; a job must not end because of one."""
    try:
        tell()
    except Exception:  # whatever it was: watching is not the work
        logger.exception("an observer failed")
