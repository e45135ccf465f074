"""A job that another server of the same cluster draws, or drew."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator

from sdgrpc.api.jobs.content import Content, other_content
from sdgrpc.api.waiting import first_of
from sdgrpc.engine.keeping.records import Key, Known, Page
from sdgrpc.engine.keeping.sharing import SharedJobs, Unreachable
from sdgrpc.errors import Draining, JobNotFound, KeepingLost
from sdgrpc.v1 import diffusion_pb2 as pb

PATIENCE_SECONDS = 10.0
"""How long a reader waits for a registry that does not answer, or does not know its job yet."""
RETRY_SECONDS = 0.5
LOST = "the job is another server's, and what the servers keep together cannot be asked now; attach again"


class Elsewhere:
    """Reads it from what the servers share: without previews, at the reader's pace.

    Args:
        shared: is asked.
        known: what it said of the job.
        readers: counts those of this server by their jobs.
        left: is set once this server stops.

    """

    def __init__(self, shared: SharedJobs, known: Known, readers: Counter[Key], left: asyncio.Event) -> None:
        self._shared, self.known, self._readers, self._left = shared, known, readers, left
        self.key = known.request.key

    @property
    def request_id(self) -> str:
        """Its id."""
        return self.key[1]

    @property
    def readers(self) -> int:
        """How many read it at this server."""
        return self._readers[self.key]

    @property
    def ended_with(self) -> int | None:
        """The sequence of its last event, once it has ended."""
        return self.known.last_sequence if self.known.has_ended else None

    def answering(self, content: Content) -> Elsewhere | None:
        """Return it where it answers a request of its id, None where that is to be drawn anew.

        Raises:
            JobExists: the request has other content.

        """
        request = self.known.request
        if not content.is_same(Content(request.digest, request.seed), request.drawn_seed):
            raise other_content(self.request_id)
        return None if self.known.is_void else self

    async def read(self, after: int) -> AsyncGenerator[pb.JobEvent, None]:
        """Yield the events after the one of that sequence, and those that come.

        Raises:
            KeepingLost: nobody can be asked for them for too long.
            JobNotFound: it was forgotten, or is drawn anew.
            Draining: this server stops; the job goes on.
            SdgrpcError: what the job failed by.

        """
        place = after + 1
        self._readers[self.key] += 1
        try:
            while True:
                page = await self._page(place)
                for event in page.events:
                    yield pb.JobEvent.FromString(event)
                place += len(page.events)
                if page.has_ended:
                    break
        finally:
            self._readers[self.key] -= 1
            if not self._readers[self.key]:
                del self._readers[self.key]
        if page.error is not None:
            raise page.error

    async def _page(self, place: int) -> Page:
        """Ask until there is an answer."""
        end = time.monotonic() + PATIENCE_SECONDS
        while True:
            failure: KeepingLost | JobNotFound
            try:
                page = await self._asked(place)
            except Unreachable:
                failure = KeepingLost(LOST)
            else:
                if page is not None:
                    return page
                failure = JobNotFound(self.request_id, f"the job {self.request_id!r} is not kept any more")
            if time.monotonic() >= end:
                raise failure
            await asyncio.sleep(RETRY_SECONDS)

    async def _asked(self, place: int) -> Page | None:
        reading = asyncio.ensure_future(self._shared.read(self.key, self.known.request.run, place))
        if not await first_of(reading, self._left.wait()):
            raise Draining("the server stops, and the job goes on at another; attach to it there")
        return reading.result()
