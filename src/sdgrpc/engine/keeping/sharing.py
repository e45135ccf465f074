"""What a front door asks of the keeping that it shares with others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from sdgrpc.engine.keeping.records import KeptRequest, Key, Known, Orders, Page, Taken, Telling


class Unreachable(Exception):
    """The shared keeping does not answer. The message is for the log."""


class SharedJobs(Protocol):
    """Kept jobs of all front doors. Each method raises Unreachable, soon."""

    @property
    def is_there(self) -> bool:
        """Whether it answered when it was last asked."""
        ...

    async def claim(self, request: KeptRequest, replaces: str) -> Known | None:
        """Begin a job; return the one of its key instead, if there is one of another run than `replaces`."""
        ...

    async def tell(self, tellings: Sequence[Telling]) -> Sequence[int]:
        """Tell of jobs; returns how many events are there of each, or `UNKNOWN` or `REFUSED`."""
        ...

    async def listen(self, *, takes: bool) -> Orders:
        """Say that this front door lives, and wait a moment for what it is to do.

        Without `takes` it is told of no orphans.
        """
        ...

    async def take(self, key: Key) -> Taken | None:
        """Become the one who draws an orphan; None where another was quicker."""
        ...

    async def find(self, key: Key) -> Known | None:
        """Return what is known of a job, if anything is."""
        ...

    async def read(self, key: Key, run: str, place: int) -> Page | None:
        """Return events from the sequence `place` on, or none where none came in a moment.

        None where there is no such job, or another run of it.
        """
        ...

    async def jobs_of(self, caller: str, after: tuple[float, str], count: int) -> Sequence[Known]:
        """Return the caller's first jobs whose time and id come after those, the oldest first."""
        ...

    async def cancel(self, key: Key, run: str = "") -> Known | None:
        """End a job, whoever draws it; return what was known of it before, if anything was.

        With a `run` that one alone.
        """
        ...

    async def leave(self) -> None:
        """Leave the jobs that this front door draws to others."""
        ...
