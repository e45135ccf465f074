"""What a server tells others of its kept jobs: in order, several events together, never in a job's way."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace

from sdgrpc.api.jobs.kept import KeptJob
from sdgrpc.api.jobs.log import too_large
from sdgrpc.api.jobs.messages import job_message
from sdgrpc.engine.keeping.records import REFUSED, UNKNOWN, KeptRequest, Telling
from sdgrpc.engine.keeping.sharing import SharedJobs, Unreachable
from sdgrpc.errors import Draining

logger = logging.getLogger(__name__)

MESSAGE_BYTES = 4 << 20
"""Of the events that travel together; one alone may have more."""
PAUSE_SECONDS = 0.05
"""Between messages, so that events travel together."""
RETRY_SECONDS = 1.0
MOST_REFUSED = 1000
"""Of requests that were claimed in vain, while nobody can be told."""


@dataclass(slots=True)
class Place:
    """How much of a job has been told: the events before `next`, and its request."""

    next: int = 0
    knows_request: bool = False
    is_due: bool = True


class Teller:
    """Tells of jobs. Used by the event loop alone.

    Args:
        shared: is told.
        keep_seconds: how long a job is kept that ended.

    """

    def __init__(self, shared: SharedJobs, keep_seconds: float) -> None:
        self._shared, self._keep_seconds = shared, keep_seconds
        self._places: dict[KeptJob, Place] = {}
        self._refused: list[Telling] = []
        self._others: list[KeptJob] = []
        self._changed = asyncio.Event()

    def begin(self, job: KeptJob, told: int = 0, *, knows_request: bool) -> None:
        """Tell of a job from now on; `told` events of it are known already."""
        self._places[job] = Place(told, knows_request)
        self._changed.set()

    def again(self, jobs: Iterable[KeptJob]) -> None:
        """Tell all of these jobs, to who knows nothing."""
        for job in jobs:
            if job.shared is not None and not job.overflowed:
                self.begin(job, knows_request=False)

    def note(self, job: KeptJob) -> None:
        """Note that there is more to tell of a job."""
        if (place := self._places.get(job)) is not None:
            place.is_due = True
            self._changed.set()
        elif job in self._others:
            self._changed.set()

    def refuse(self, request: KeptRequest) -> None:
        """Tell that a job that was claimed is not drawn, and nobody knows of it."""
        self._refused.append(Telling(request.key, request.run, is_refused=True))
        self._changed.set()

    async def run(self) -> None:
        """Tell until cancelled; what cannot be told now is told later."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                while await self.tell_some():  # noqa: ASYNC110 - a pause, in which more comes
                    await asyncio.sleep(PAUSE_SECONDS)
            except Unreachable:
                self._changed.set()
                await asyncio.sleep(RETRY_SECONDS)
            except Exception:  # other jobs are to be told all the same
                logger.exception("kept jobs could not be told")
                self._changed.set()
                await asyncio.sleep(RETRY_SECONDS)

    async def tell_some(self) -> bool:
        """Send a message of what is to be told; returns whether there was anything.

        Raises:
            Unreachable: nothing counts as told.

        """
        await self._end_others()
        told: list[tuple[KeptJob, Place, Telling]] = []
        room = MESSAGE_BYTES
        for job, place in self._places.items():
            if place.is_due and room > 0:
                telling = self._telling(job, place, room)
                room -= sum(map(len, telling.events))
                told.append((job, place, telling))
                place.is_due = False
        refused, self._refused = self._refused, []
        if not told and not refused:
            return False
        try:
            answers = await self._shared.tell([*refused, *(telling for *_, telling in told)])
        except BaseException:
            for _, place, _ in told:
                place.is_due = True
            self._refused = [*refused, *self._refused][-MOST_REFUSED:]
            raise
        for (job, place, telling), answer in zip(told, answers[len(refused) :], strict=True):
            self._answered(job, place, telling, answer)
        return True

    async def _end_others(self) -> None:
        """Have jobs that CancelJob ended here end where they are drawn too, since this server seemed dead."""
        for job in [job for job in self._others if job.log.ended]:
            if job.cancelled and job.shared is not None:
                await self._shared.cancel(job.shared.key, job.shared.run)
            self._others.remove(job)

    def _telling(self, job: KeptJob, place: Place, room: int) -> Telling:
        """Return what is new of a job, with as many events as there is room for, one at least."""
        assert job.shared is not None  # noqa: S101 - for the type checker
        key, run = job.shared.key, job.shared.run
        if job.log.ended and job.accepted is None and not job.was_begun:
            return Telling(key, run, is_refused=True)
        events: list[bytes] = []
        for event in job.log.since(place.next):
            written = event.SerializeToString()
            if events and len(written) > room:
                break
            events.append(written)
            room -= len(written)
        is_whole = place.next + len(events) == job.log.last_sequence + 1
        error, has_ended = job.log.error, job.log.ended and is_whole
        if job.overflowed or (not events and not is_whole):  # they were let go of before they were told
            error, has_ended = too_large(), True
        if isinstance(error, Draining):  # another server draws it
            error, has_ended = None, False
        request = None if place.knows_request else job.shared
        expires = job.expires or time.time() + self._keep_seconds
        written = job_message(job).SerializeToString()
        return Telling(key, run, place.next, tuple(events), written, request, has_ended, error, expires)

    def _answered(self, job: KeptJob, place: Place, telling: Telling, answer: int) -> None:
        if self._places.get(job) is not place:
            return
        if answer == UNKNOWN:
            place.next, place.knows_request, place.is_due = 0, False, True
            return
        is_told = answer == telling.start + len(telling.events)
        if answer == REFUSED or telling.is_refused or (is_told and telling.has_ended):
            del self._places[job]
            if answer == REFUSED:
                self._others.append(job)
            if job.shared is not None and job.log.ended:
                job.shared = replace(job.shared, request=b"")  # it need not be drawn again
            return
        place.next, place.knows_request = answer, True
        if not is_told or answer <= job.log.last_sequence:
            place.is_due = True
