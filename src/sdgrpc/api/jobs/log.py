"""What happened to one job, for any number of readers. Used by the event loop alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass

from sdgrpc.errors import KeepingFull, SdgrpcError
from sdgrpc.v1 import diffusion_pb2 as pb

EVENT_BYTES = 512
"""What an event takes besides its bytes on the wire, so that small ones count too."""


@dataclass(eq=False, slots=True)
class Reader:
    """Somebody who reads; `place` is the sequence of the next event to take."""

    place: int


class EventLog:
    """The events of a job: it keeps them without previews, which only the latest has until the next comes.

    `count` is told of bytes that are kept more, or fewer; `on_left` whenever a reader has left.
    """

    def __init__(self, count: Callable[[int], None]) -> None:
        self._count = count
        self.on_left: Callable[[], None] = lambda: None
        self.size = 0
        self.ended = False
        self.error: SdgrpcError | None = None
        self._events: list[pb.JobEvent | None] = []
        self._latest: pb.JobEvent | None = None
        self._readers: set[Reader] = set()
        self._dropped = False
        self._changed = asyncio.Event()

    @property
    def last_sequence(self) -> int:
        """That of the last event; -1 where there is none."""
        return len(self._events) - 1

    @property
    def readers(self) -> int:
        """How many read."""
        return len(self._readers)

    @property
    def is_awaited(self) -> bool:
        """Whether somebody has read all there is, and waits for what comes."""
        return any(reader.place == len(self._events) for reader in self._readers)

    def since(self, place: int) -> Sequence[pb.JobEvent]:
        """Return the events that are kept from that sequence on, up to one that was let go."""
        kept = []
        for event in self._events[place:]:
            if event is None:
                break
            kept.append(event)
        return kept

    def add(self, event: pb.JobEvent) -> None:
        """Append an event."""
        self._latest, kept = event, event
        if event.WhichOneof("event") == "progress" and event.progress.previews:
            kept = pb.JobEvent()
            kept.CopyFrom(event)
            kept.progress.ClearField("previews")
        self._events.append(kept)
        self._resize(size_of(kept))
        self._tell()

    def end(self, error: SdgrpcError | None = None) -> None:
        """End after what is there, by `error` where one is given. The first end counts."""
        if not self.ended:
            self.ended, self.error, self._latest = True, error, None
            self._tell()

    def drop(self) -> None:
        """Let go of every event as soon as nobody reads; there are no new readers."""
        self._dropped = True
        self._drop_before(0 if self._readers else len(self._events))

    def drop_read(self) -> None:
        """Let go of the events that all readers have taken."""
        self._drop_before(min((reader.place for reader in self._readers), default=len(self._events)))

    async def caught_up(self) -> None:
        """Return when every reader has taken all there is."""
        while any(reader.place < len(self._events) for reader in self._readers):
            await self._changed.wait()

    async def awaited(self) -> None:
        """Return when one reader has taken all there is, or there is none; slower ones hold nobody up."""
        while self._readers and not self.is_awaited:
            await self._changed.wait()

    async def read(self, after: int = -1) -> AsyncGenerator[pb.JobEvent, None]:
        """Yield the events after the one of that sequence, and those that come.

        Raises:
            KeepingFull: events were let go that this reader has not seen.
            SdgrpcError: what the job failed by.

        """
        reader = Reader(after + 1)
        self._readers.add(reader)
        try:
            while True:
                if reader.place < len(self._events):
                    yield self._at(reader.place)
                    reader.place += 1
                    self._tell()
                elif self.ended:
                    break
                else:
                    await self._changed.wait()
        finally:
            self._readers.discard(reader)
            self._tell()
            if self._dropped:
                self.drop()
            self.on_left()
        if self.error is not None:
            raise self.error.with_traceback(None)

    def _at(self, place: int) -> pb.JobEvent:
        if place == len(self._events) - 1 and self._latest is not None:
            return self._latest
        event = self._events[place]
        if event is None:
            raise self.error or too_large()
        return event

    def _drop_before(self, place: int) -> None:
        for index in range(place - 1, -1, -1):
            event = self._events[index]
            if event is None:
                break
            self._events[index] = None
            self._resize(-size_of(event))
        if place == len(self._events):
            self._latest = None

    def _resize(self, difference: int) -> None:
        self.size += difference
        self._count(difference)

    def _tell(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


def size_of(event: pb.JobEvent) -> int:
    """The bytes that an event counts for."""
    return event.ByteSize() + EVENT_BYTES


def too_large() -> KeepingFull:
    """The failure of a job whose events do not fit, and of who comes back to it."""
    return KeepingFull("the job's events do not fit into what the server keeps (keep_bytes); draw it anew")
