"""What requests hold before their jobs are queued, and until these end: places and bytes.

Used by the event loop alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from sdgrpc.engine.base import Engine
from sdgrpc.errors import QueueFull

RETRY_SECONDS = 2.0
MOST_RETURNING = 4
"""Requests received at a time without a place, since they may be of jobs that are there."""


class Holding:
    """One for all calls.

    A request that is received or decoded has a place in the queue already: of sixteen that come at once for
    two places, two are received. The bytes of requests, and of the pictures decoded from them, have a budget.
    """

    def __init__(self, body_budget_bytes: int) -> None:
        self._budget = body_budget_bytes
        self._bytes = 0
        self._places: Counter[str] = Counter()
        self._returning = 0

    @property
    def held_bytes(self) -> int:
        """What is held now."""
        return self._bytes

    @contextmanager
    def place(self, engine: Engine, caller: str) -> Iterator[None]:
        """Hold a place in the queue until the job has one of its own.

        Raises:
            QueueFull, TokenQueueFull, Draining: as `Engine.check_room`.

        """
        engine.check_room(caller, ahead=self._places.total(), ahead_of_caller=self._places[caller])
        self._places[caller] += 1
        try:
            yield
        finally:
            self._places[caller] -= 1
            if not self._places[caller]:
                del self._places[caller]

    @contextmanager
    def place_or_return(self, engine: Engine, caller: str, *, may_return: bool) -> Iterator[None]:
        """Hold a place, or none where none is left and the request may be of a job that is kept already.

        Which it is tells only the request, so a few are received all the same.

        Raises:
            QueueFull, TokenQueueFull, Draining: as `place`.

        """
        with ExitStack() as held:
            try:
                held.enter_context(self.place(engine, caller))
            except QueueFull:
                if not may_return or self._returning >= MOST_RETURNING:
                    raise
                held.enter_context(self._received_without_place())
            yield

    @contextmanager
    def _received_without_place(self) -> Iterator[None]:
        self._returning += 1
        try:
            yield
        finally:
            self._returning -= 1

    def check(self) -> None:
        """Raise QueueFull where no request would be received now."""
        if self._bytes >= self._budget:
            raise self._full()

    @contextmanager
    def holding(self, size: int) -> Iterator[None]:
        """Hold bytes; one request alone may hold any number.

        Raises:
            QueueFull: with what others hold they are too many.

        """
        if self._bytes and self._bytes + size > self._budget:
            raise self._full()
        self._bytes += size
        try:
            yield
        finally:
            self._bytes -= size

    def _full(self) -> QueueFull:
        return QueueFull(
            f"the requests inside hold {self._bytes} bytes (body_budget_bytes is {self._budget}); try again "
            "later or on another server",
            retry_after=RETRY_SECONDS,
        )
