"""The bridge from the engine's threads to the event loop: one job's events, in order, never blocking."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from sdgrpc.domain import Event, ImageReady, Preview
from sdgrpc.errors import QueueFull

RETRY_SECONDS = 2.0

RenderPreviews = Callable[[], tuple[Preview, ...]]


@dataclass(slots=True)
class Item:
    """An event, and for a progress event the work that makes its previews when somebody reads it."""

    event: Event
    render: RenderPreviews | None = None


class Undelivered:
    """The bytes of finished pictures that wait for their readers, of all streams. Thread safe.

    Nobody is stopped by them who draws; new jobs are refused while there are more than `budget_bytes`.
    """

    def __init__(self, budget_bytes: int) -> None:
        self._budget, self._bytes = budget_bytes, 0
        self._lock = threading.Lock()

    @property
    def held_bytes(self) -> int:
        """How many there are."""
        with self._lock:
            return self._bytes

    def add(self, size: int) -> None:
        """Count bytes in, or out where `size` is negative."""
        with self._lock:
            self._bytes += size

    def check(self) -> None:
        """Raise QueueFull where new jobs would add to too many."""
        held = self.held_bytes
        if held > self._budget:
            raise QueueFull(
                f"{held} bytes of finished pictures wait for their readers (undelivered_budget_bytes is "
                f"{self._budget}); try again later or on another server",
                retry_after=RETRY_SECONDS,
            )


def size_of(event: Event) -> int:
    """The bytes of an event that count: a picture's."""
    return len(event.image.data) if isinstance(event, ImageReady) else 0


class EventStream:
    """A queue that any thread may write to and one coroutine reads.

    It is bounded without ever blocking the writer: a task has a fixed number of events, and only the latest
    unread one keeps its previews, so previews cost memory and time only for a reader that keeps up; how many
    were given up for that is `previews_dropped`.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, undelivered: Undelivered | None = None) -> None:
        self._loop = loop
        self._undelivered = undelivered or Undelivered(0)
        self._left = False
        self._lock = threading.Lock()
        self._items: deque[Item] = deque()
        self._ended = False
        self.previews_dropped = 0
        self._error: BaseException | None = None
        self._changed = asyncio.Event()

    def put(self, event: Event, render: RenderPreviews | None = None) -> None:
        """Append an event; `render` replaces that of the unread ones before it. Ignored after the end."""
        with self._lock:
            if self._ended:
                return
            if render is not None:
                for item in self._items:
                    self.previews_dropped += item.render is not None
                    item.render = None
            if self._left:
                return
            self._items.append(Item(event, render))
            self._undelivered.add(size_of(event))
        self._wake()

    def end(self, error: BaseException | None = None) -> None:
        """End the stream after what is in it, by `error` where one is given. The first end counts."""
        with self._lock:
            if self._ended:
                return
            self._ended, self._error = True, error
        self._wake()

    def leave(self) -> None:
        """Drop what is not read, now and later: the reader has gone."""
        with self._lock:
            self._left = True
            dropped = sum(size_of(item.event) for item in self._items)
            self._items.clear()
        self._undelivered.add(-dropped)

    def _wake(self) -> None:
        # The loop may be gone: the server was stopped while a job ran, and nobody reads any more.
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._changed.set)

    def _take(self) -> tuple[Item | None, bool]:
        with self._lock:
            self._changed.clear()
            return (self._items.popleft() if self._items else None), self._ended

    async def __aiter__(self) -> AsyncIterator[Item]:
        """Yield the items as they come; raise the error that ended the stream, if any."""
        while True:
            item, ended = self._take()
            if item is not None:
                try:
                    yield item
                finally:  # it comes back here once its reader has taken the event
                    self._undelivered.add(-size_of(item.event))
            elif ended:
                break
            else:
                await self._changed.wait()
        if self._error is not None:
            raise self._error
