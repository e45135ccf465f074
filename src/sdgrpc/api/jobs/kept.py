"""One job that outlives its connection."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field

from sdgrpc.api.codec import KINDS, Request
from sdgrpc.api.interceptor import named
from sdgrpc.api.jobs.content import Content
from sdgrpc.api.jobs.log import EventLog, too_large
from sdgrpc.domain import TaskKind
from sdgrpc.engine.keeping.records import KeptRequest
from sdgrpc.errors import Draining, JobCancelled, KeepingFull, SdgrpcError
from sdgrpc.v1 import diffusion_pb2 as pb

Draw = Callable[[Callable[[], bool]], AsyncGenerator[pb.JobEvent, None]]
"""Queues a job and yields its events; asked is whether a preview would be read now."""


@dataclass(eq=False)
class KeptJob:
    """A job and what happened to it. `created` and `expires` are times of the wall clock.

    `expires` is set once it ended.

    It has `overflowed` once its events had no room: it then lives for its readers alone.
    `shared` is told to other servers, where there are any. It `was_begun` by one of them,
    where that one died.
    """

    caller: str
    request_id: str
    kind: TaskKind
    content: Content
    log: EventLog
    created: float = field(default_factory=time.time)
    expires: float | None = None
    accepted: pb.Accepted | None = None
    step: int = 0
    images_finished: int = 0
    cancelled: bool = False
    overflowed: bool = False
    running: asyncio.Task[None] | None = None
    on_end: Callable[[], None] = lambda: None
    on_change: Callable[[], None] = lambda: None
    shared: KeptRequest | None = None
    was_begun: bool = False

    @property
    def drawn_seed(self) -> int | None:
        """The seed that it draws from; None until it is accepted."""
        return None if self.accepted is None else self.accepted.sampling.seed

    @property
    def readers(self) -> int:
        """How many read it."""
        return self.log.readers

    def read(self, after: int) -> AsyncGenerator[pb.JobEvent, None]:
        """See `EventLog.read`."""
        return self.log.read(after)

    @property
    def ended_with(self) -> int | None:
        """The sequence of its last event, once it has ended."""
        return self.log.last_sequence if self.log.ended else None

    @property
    def failed(self) -> bool:
        """Whether it ended without its pictures."""
        return self.log.ended and self.log.error is not None

    @property
    def is_void(self) -> bool:
        """Whether the same request has to be drawn anew, since this job has no pictures to give."""
        return self.failed or self.cancelled or self.overflowed

    async def run(self, request: Request, draw: Draw, make_room: Callable[[], bool]) -> None:
        """Draw, and keep what happens; `make_room` tells whether that has room. Failures end the log."""
        try:
            async with aclosing(draw(lambda: self.log.is_awaited)) as events:
                async for event in events:
                    self.take(event)
                    await self._fit(make_room)
                    await self.log.awaited()  # or it would miss the previews that the engine has for it
            self._end()
        except asyncio.CancelledError:
            self.stop()
            if not self.cancelled:
                raise
        except Exception as error:
            self._end(named(error, request, KINDS[type(request)].value))

    def stop(self) -> None:
        """End it as one that is not drawn any more; one that has ended stays as it is."""
        self._end(self._why_cancelled())

    def _end(self, error: SdgrpcError | None = None) -> None:
        if not self.log.ended:
            self.log.end(error)
            self.on_end()
            self.on_change()

    def cancel(self) -> None:
        """End the job before its next step; one that has ended stays as it is."""
        if self.running is not None and not self.log.ended:
            self.cancelled = True
            self.running.cancel()

    def take(self, event: pb.JobEvent) -> None:
        """Keep an event."""
        match event.WhichOneof("event"):
            case "accepted":
                self.accepted = event.accepted
            case "progress":
                self.step = event.progress.step
            case "image":
                self.images_finished += 1
        self.log.add(event)
        self.on_change()

    async def _fit(self, make_room: Callable[[], bool]) -> None:
        """Where the events have no room any more, hold no more of them than its readers have yet to take.

        Raises:
            KeepingFull: nobody reads.

        """
        if not self.overflowed and make_room():
            return
        self.overflowed = True
        if self.log.readers:
            await self.log.caught_up()  # what comes waits in the engine, which counts it
        self.log.drop_read()
        if not self.log.readers:
            raise too_large()

    def _why_cancelled(self) -> JobCancelled | Draining | KeepingFull:
        if self.overflowed:
            return too_large()
        if self.cancelled:
            return JobCancelled("the job was cancelled by CancelJob")
        return Draining("the server stopped before this job ended")
