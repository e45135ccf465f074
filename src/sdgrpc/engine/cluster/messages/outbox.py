"""Events that wait to travel: together where nobody waits for them, with the latest previews only."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import replace

from sdgrpc.domain import EncodedImage, Event, ImageReady, Progress, UpscaleEvent
from sdgrpc.engine.cluster.messages.observations import Observation, Took
from sdgrpc.engine.observing.observer import Stage

Item = Event | UpscaleEvent | Observation


class Outbox:
    """One job's events between its engine and whoever sends them. On one event loop, but for `note`.

    A picture that waits holds back what follows it, so that the engine goes on counting what is undelivered.

    Args:
        tells_begin: that the job has left the queue is told at once, since its caller is counted by that.

    """

    def __init__(self, *, tells_begin: bool = False) -> None:
        self._tells_begin, self._loop = tells_begin, asyncio.get_running_loop()
        self._is_accepted, self._begins = False, False
        self._events: list[Event | UpscaleEvent] = []
        self._noted: deque[Observation] = deque()
        self._changed, self._taken = asyncio.Event(), asyncio.Event()
        self._ended = False

    def note(self, observation: Observation) -> None:
        """Have an observation travel with the next event, or at the end. From any thread."""
        self._noted.append(observation)
        begins = isinstance(observation, Took) and observation.stage is Stage.QUEUED
        if begins and self._tells_begin and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._begin)

    def _begin(self) -> None:
        self._begins = bool(self._noted)  # else it went with an event already
        self._changed.set()

    async def put(self, event: Event | UpscaleEvent) -> None:
        """Append an event; its previews replace those that still wait. Waits while a picture is here."""
        if isinstance(event, Progress) and event.previews:
            for number, waiting in enumerate(self._events):
                if isinstance(waiting, Progress) and waiting.previews:
                    self._events[number] = replace(waiting, previews=())
        self._events.append(event)
        self._is_accepted = True  # which is the first event
        self._changed.set()
        while any(isinstance(one, ImageReady | EncodedImage) for one in self._events):
            self._taken.clear()
            await self._taken.wait()

    def end(self) -> None:
        """Say that no more come."""
        self._ended = True
        self._changed.set()

    async def take(self) -> list[Item]:
        """Return all that wait, at least one; none once there are no more."""
        while not (self._events or self._ended or (self._begins and self._is_accepted)):
            self._changed.clear()
            await self._changed.wait()
        self._begins = False
        noted = [self._noted.popleft() for _ in range(len(self._noted))]
        items: list[Item] = [*self._events, *noted]  # nobody follows a job before it is accepted
        self._events.clear()
        self._taken.set()
        return items
