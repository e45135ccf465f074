"""Which queued job begins next: what the loop asks, and the answer where every model is in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from sdgrpc.engine.job import Job


class Admission(Protocol):
    """What decides which queued job begins. Called with the loop's lock held; `on_change` is called without.

    `on_change` is set by the loop, to be called whenever `choose` may answer otherwise than before.
    """

    on_change: Callable[[], None]

    def choose(self, queued: Iterable[Job], *, room: bool) -> Job | None:
        """Return the job that begins now, None if none may; `queued` is in the order of arrival."""
        ...

    def leave(self, job: Job) -> None:
        """Forget a job that ended; unknown ones are forgotten already."""
        ...


class FirstCome:
    """The oldest job begins: every model is there."""

    def __init__(self) -> None:
        self.on_change: Callable[[], None] = lambda: None

    def choose(self, queued: Iterable[Job], *, room: bool) -> Job | None:
        """See `Admission.choose`."""
        return next(iter(queued), None) if room else None

    def leave(self, job: Job) -> None:
        """See `Admission.leave`."""
