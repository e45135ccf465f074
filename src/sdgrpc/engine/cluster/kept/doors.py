"""Which front doors live, and what they allow."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from sdgrpc.engine.cluster.kept.entries import waited

DEAD_SECONDS = 6.0
"""A front door of which nothing was heard for so long is taken for dead."""


@dataclass(slots=True)
class Door:
    """A front door: when it was last heard of, its settings, and what wakes it."""

    heard: float
    keep_seconds: float
    keep_bytes: int
    woken: asyncio.Event = field(default_factory=asyncio.Event)


class Doors:
    """The front doors by their names. `keep_seconds` and `keep_bytes` are the largest of those that live.

    Args:
        keep_seconds: those of the first.
        keep_bytes: as well.
        now: the time of the wall clock.

    """

    def __init__(self, keep_seconds: float, keep_bytes: int, now: Callable[[], float]) -> None:
        self.keep_seconds, self.keep_bytes = keep_seconds, keep_bytes
        self._now, self._began = now, now()
        self._doors: dict[str, Door] = {}

    def knows(self, name: str) -> bool:
        """Tell whether anything was ever heard of a front door."""
        return name in self._doors

    def hear(self, name: str) -> Door:
        """Note that a front door lives."""
        door = self._doors.setdefault(name, Door(0.0, self.keep_seconds, self.keep_bytes))
        door.heard = self._now()
        return door

    def note(self, name: str, keep_seconds: float, keep_bytes: int) -> None:
        """Hear of a front door, and of its settings; those that are long dead are forgotten."""
        door = self.hear(name)
        door.keep_seconds, door.keep_bytes = keep_seconds, keep_bytes
        living = [one for name, one in self._doors.items() if self.lives(name)]
        self.keep_seconds = max(one.keep_seconds for one in living)
        self.keep_bytes = max(one.keep_bytes for one in living)
        gone = self.keep_seconds + DEAD_SECONDS
        self._doors = {name: one for name, one in self._doors.items() if self.lost_for(name) <= gone}

    def leave(self, name: str) -> None:
        """Take a front door for dead from now on, and have the others look for what it left."""
        self.hear(name).heard -= DEAD_SECONDS
        for one in self._doors.values():
            one.woken.set()

    def lives(self, name: str) -> bool:
        """Tell whether a front door was heard of lately."""
        return self.lost_for(name) < DEAD_SECONDS

    def lost_for(self, name: str) -> float:
        """Return for how many seconds nothing was heard of a front door, or since the start."""
        door = self._doors.get(name)
        return self._now() - (self._began if door is None else door.heard)

    def wake(self, name: str) -> None:
        """Have a front door look for what it is to do."""
        if (door := self._doors.get(name)) is not None:
            door.woken.set()

    async def woken(self, name: str, seconds: float) -> bool:
        """Wait until a front door is woken, for so long at most; tell whether it was."""
        event = self._doors[name].woken
        event.clear()
        return await waited(event, seconds)
