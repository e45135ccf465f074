"""One job in the registry."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from sdgrpc.engine.keeping.records import KeptRequest, Key, Known, Page
from sdgrpc.errors import SdgrpcError

EVENT_BYTES = 512
"""What an event takes besides its bytes, as a front door counts it."""
PAGE_BYTES = 4 << 20
"""Of the events that travel together; one alone may have more."""


@dataclass(eq=False)
class Entry:
    """A job: its request, its events, and who draws it. Used by one event loop.

    `doors` counts the front doors that have begun to. It `is_confirmed` once the last of them told of it:
    the answer that gave it the job may have been lost. `count` is told of bytes that are kept more, or fewer.
    """

    request: KeptRequest
    door: str
    count: Callable[[int], None]
    doors: int = 1
    is_confirmed: bool = True
    events: list[bytes] = field(default_factory=list)
    job: bytes = b""
    is_cancelled: bool = False
    has_ended: bool = False
    error: SdgrpcError | None = None
    expires: float = 0.0
    size: int = 0
    last_read: float = 0.0
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self._resize(len(self.request.request) + EVENT_BYTES)

    def _resize(self, difference: int) -> None:
        self.size += difference
        self.count(difference)

    @property
    def key(self) -> Key:
        """Whose it is, and its id."""
        return self.request.key

    @property
    def is_void(self) -> bool:
        """Whether the same request has to be drawn anew."""
        return self.is_cancelled or self.error is not None

    def add(self, start: int, events: Sequence[bytes]) -> None:
        """Append those events that are not there yet; nothing where some before them are missing."""
        if start > len(self.events):
            return
        new = events[len(self.events) - start :]
        self.events += new
        self._resize(sum(len(event) + EVENT_BYTES for event in new))
        self.tell_change()

    def end(self, error: SdgrpcError | None, expires: float) -> None:
        """End after what is there; the request is not needed any more."""
        self.has_ended, self.error, self.expires = True, error, expires
        self._resize(-len(self.request.request))
        self.request = replace(self.request, request=b"")
        self.tell_change()

    def drop(self) -> None:
        """Let go of the events, for their memory."""
        self._resize(-sum(len(event) + EVENT_BYTES for event in self.events))
        self.events.clear()

    def page(self, place: int) -> Page:
        """Return events from a place on, as many as travel together."""
        events, size = list[bytes](), 0
        for event in self.events[place:]:
            size += len(event)
            if events and size > PAGE_BYTES:
                break
            events.append(event)
        is_last = self.has_ended and place + len(events) >= len(self.events)
        return Page(tuple(events), is_last, self.error if is_last else None)

    def known(self) -> Known:
        """Return what is told of it."""
        bare = replace(self.request, request=b"")
        last, cancelled = len(self.events) - 1, self.is_cancelled
        return Known(bare, self.door, self.job, last, cancelled, self.has_ended, self.error, self.expires)

    def tell_change(self) -> None:
        """Wake whoever waits for its events."""
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()


async def waited(event: asyncio.Event, seconds: float) -> bool:
    """Wait for an event, for so long at most; tell whether it came."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
