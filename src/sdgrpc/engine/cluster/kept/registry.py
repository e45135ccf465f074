"""The actor that keeps jobs for all front doors of a Ray. Ray is not needed here: it is a plain class."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence

from sdgrpc.engine.cluster.kept.doors import Doors
from sdgrpc.engine.cluster.kept.entries import Entry, waited
from sdgrpc.engine.keeping.records import (
    REFUSED,
    UNKNOWN,
    KeptRequest,
    Key,
    Known,
    Orders,
    Page,
    Taken,
    Telling,
)
from sdgrpc.errors import EngineFailed, JobCancelled, KeepingFull

MOST_JOBS = 10_000
MOST_DOORS = 3
"""How many front doors may die of one job."""
WAIT_SECONDS = 1.0
"""How long `listen` and `read` wait for something to say: a front door is heard of as often."""
READ_SECONDS = 10.0
"""A job that was read within so many seconds is not forgotten for its memory."""
NO_ROOM = "the job's events do not fit into what the servers keep together (keep_bytes); draw it anew"


class JobRegistry:
    """Jobs that outlive their connection, of every front door of a Ray. Used by one event loop.

    A job that ended is forgotten when it expires, or, where all that is kept has more bytes than a front door
    allows, before those that ended after it. A job that nobody draws is forgotten `keep_seconds` after its
    front door was last heard of. A registry that is started again learns from the front doors.

    Args:
        keep_seconds: how long jobs are kept.
        keep_bytes: what all of them may take; of several front doors' numbers the largest counts.
        now: the time of the wall clock.

    """

    def __init__(self, keep_seconds: float, keep_bytes: int, now: Callable[[], float] = time.time) -> None:
        self._life = uuid.uuid4().hex
        self._now = now
        self._doors = Doors(keep_seconds, keep_bytes, now)
        self._entries: dict[Key, Entry] = {}
        self.held_bytes = 0

    def _count(self, difference: int) -> None:
        self.held_bytes += difference

    async def claim(self, door: str, request: KeptRequest, replaces: str) -> Known | None:
        """See `SharedJobs.claim`."""
        self._doors.hear(door)
        entry = self._entries.get(request.key)
        if entry is not None and entry.request.run != replaces and not self._has_expired(entry):
            return entry.known()
        self._begin(door, request)
        return None

    async def tell(self, door: str, tellings: Sequence[Telling]) -> list[int]:
        """See `SharedJobs.tell`."""
        self._doors.hear(door)
        return [self._told(door, telling) for telling in tellings]

    def _told(self, door: str, telling: Telling) -> int:
        entry, request = self._entries.get(telling.key), telling.request
        if request is not None and (entry is None or (entry.is_void and entry.request.run != telling.run)):
            entry = self._begin(door, request)
        if entry is None:
            return UNKNOWN
        if (entry.request.run, entry.door) != (telling.run, door):
            return REFUSED
        entry.is_confirmed = True
        if telling.is_refused:
            self._forget(entry)
        elif not entry.has_ended:
            entry.job = telling.job
            entry.add(telling.start, telling.events)
            if telling.has_ended and telling.start + len(telling.events) == len(entry.events):
                entry.end(telling.error, telling.expires)
            if not self._make_room():
                self._drop(entry)
        return len(entry.events)

    def _begin(self, door: str, request: KeptRequest) -> Entry | None:
        """Keep a job that begins, in place of one of its key; None where there is no room."""
        if (before := self._entries.get(request.key)) is not None:
            self._forget(before)
        entry = self._entries[request.key] = Entry(request, door, self._count)
        if self._make_room():
            return entry
        self._forget(entry)
        return None

    async def listen(self, door: str, keep_seconds: float, keep_bytes: int, takes: bool) -> Orders:
        """See `SharedJobs.listen`; the numbers are those of this front door's settings.

        The first answer comes at once.
        """
        is_first = not self._doors.knows(door)
        self._doors.note(door, keep_seconds, keep_bytes)
        self._sweep()
        orders = self._orders(door, takes=takes)
        if not (is_first or orders.cancels or orders.orphans) and await self._doors.woken(door, WAIT_SECONDS):
            orders = self._orders(door, takes=takes)
        return orders

    def _orders(self, door: str, *, takes: bool) -> Orders:
        entries = [entry for entry in self._entries.values() if not entry.has_ended]
        cancels = [
            (entry.key, entry.request.run) for entry in entries if entry.is_cancelled and entry.door == door
        ]
        orphans = [entry.key for entry in entries if takes and self._may_take(door, entry)]
        return Orders(self._life, tuple(cancels), tuple(orphans))

    def _is_orphan(self, entry: Entry) -> bool:
        return not entry.has_ended and not self._doors.lives(entry.door)

    def _may_take(self, door: str, entry: Entry) -> bool:
        is_given = entry.door == door and not entry.is_confirmed
        return self._is_orphan(entry) or (is_given and not entry.has_ended)

    async def take(self, door: str, key: Key) -> Taken | None:
        """See `SharedJobs.take`."""
        entry = self._entries.get(key)
        if entry is None or not self._may_take(door, entry) or entry.is_cancelled:
            return None
        if entry.door == door and not entry.is_confirmed:
            return Taken(entry.request, tuple(entry.events))
        if entry.doors == MOST_DOORS:
            self._end(
                entry, EngineFailed(f"{MOST_DOORS} servers ended while they drew this job; send it again")
            )
            return None
        entry.door, entry.doors, entry.is_confirmed = door, entry.doors + 1, False
        return Taken(entry.request, tuple(entry.events))

    async def find(self, key: Key) -> Known | None:
        """See `SharedJobs.find`."""
        entry = self._entries.get(key)
        return None if entry is None or self._has_expired(entry) else entry.known()

    async def read(self, key: Key, run: str, place: int) -> Page | None:
        """See `SharedJobs.read`."""
        entry = self._entries.get(key)
        if entry is None or entry.request.run != run:
            return None
        entry.last_read = self._now()
        if not entry.has_ended and place >= len(entry.events):
            await waited(entry.changed, WAIT_SECONDS)
        return entry.page(place) if self._entries.get(key) is entry else None

    async def jobs_of(self, caller: str, after: tuple[float, str], count: int) -> list[Known]:
        """See `SharedJobs.jobs_of`."""
        those = [
            (place, entry)
            for entry in self._entries.values()
            if entry.key[0] == caller and not self._has_expired(entry)
            if (place := (entry.request.created, entry.key[1])) > after
        ]
        return [entry.known() for _, entry in sorted(those, key=lambda one: one[0])[:count]]

    async def cancel(self, key: Key, run: str = "") -> Known | None:
        """See `SharedJobs.cancel`."""
        entry = self._entries.get(key)
        if entry is None or self._has_expired(entry) or run not in ("", entry.request.run):
            return None
        before = entry.known()
        if not entry.has_ended:
            entry.is_cancelled = True
            self._doors.wake(entry.door)
            self._end_where_orphaned(entry)
        return before

    async def leave(self, door: str) -> None:
        """See `SharedJobs.leave`."""
        self._doors.leave(door)
        for entry in list(self._entries.values()):
            if entry.door == door:
                entry.doors -= 1  # it did not die of the job
            self._end_where_orphaned(entry)

    def _sweep(self) -> None:
        """Forget what has expired, and what nobody came for."""
        for entry in list(self._entries.values()):
            self._end_where_orphaned(entry)
            lost = not entry.has_ended and self._doors.lost_for(entry.door) > self._doors.keep_seconds
            if lost or self._has_expired(entry):
                self._forget(entry)

    def _end_where_orphaned(self, entry: Entry) -> None:
        """End a cancelled job that nobody draws: nobody else would."""
        if entry.is_cancelled and self._is_orphan(entry):
            self._end(entry, JobCancelled("the job was cancelled by CancelJob"))

    def _end(self, entry: Entry, error: EngineFailed | JobCancelled | KeepingFull) -> None:
        entry.end(error, self._now() + self._doors.keep_seconds)

    def _has_expired(self, entry: Entry) -> bool:
        return entry.has_ended and entry.expires <= self._now()

    def _drop(self, entry: Entry) -> None:
        """End a job whose events have no room here; its front door goes on with it."""
        entry.drop()
        self._end(entry, KeepingFull(NO_ROOM))

    def _make_room(self) -> bool:
        """Forget jobs that have ended until the rest has room; tell whether it has."""
        if self._fits():
            return True
        busy = self._now() - READ_SECONDS
        ended = [entry for entry in self._entries.values() if entry.has_ended and entry.last_read < busy]
        for entry in sorted(ended, key=lambda one: one.expires):
            self._forget(entry)
            if self._fits():
                return True
        return False

    def _fits(self) -> bool:
        return len(self._entries) <= MOST_JOBS and self.held_bytes <= self._doors.keep_bytes

    def _forget(self, entry: Entry) -> None:
        if self._entries.get(entry.key) is entry:
            del self._entries[entry.key]
            self._count(-entry.size)
            entry.tell_change()
