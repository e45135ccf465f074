"""The jobs of each open page, so that a button, a reload or a closed tab cancels them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sdgrpc.client import AsyncJob


class Running:
    """Jobs by the page's session. A session that has ended starts none."""

    def __init__(self) -> None:
        self._jobs: dict[str, list[AsyncJob]] = {}

    @contextmanager
    def holding(self, session: str, *jobs: AsyncJob) -> Iterator[None]:
        """Keep jobs for the block; they are closed at its end, however it ends."""
        held = self._jobs.setdefault(session, [])
        held.extend(jobs)
        try:
            yield
        finally:
            for job in jobs:
                job.close()
                held.remove(job)
            if not held:
                self._jobs.pop(session, None)

    def cancel(self, session: str) -> int:
        """Cancel what a page draws: how many jobs that were."""
        jobs = list(self._jobs.get(session, ()))
        for job in jobs:
            job.cancel()
        return len(jobs)
