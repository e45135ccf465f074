"""Which jobs run in the next UNet call. Works on small records; never sees a tensor."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from sdgrpc.engine.job import UNSIZED, CallSize

NextCall = Literal["least_work", "least_slack", "oldest"]


class Rest(NamedTuple):
    """What is left of a job: how many seconds it would take alone, 0 if unknown, and when it must be done."""

    seconds: float = 0.0
    deadline: float = math.inf

    @property
    def latest(self) -> float:
        """When the rest has to begin at the latest, if it then has the device to itself."""
        return self.deadline - self.seconds


UNKNOWN = Rest()


@dataclass(slots=True)
class ReadyJob:
    """A job that waits for its next step.

    `group` is equal for jobs that can share a call, `rows` how many latents the job brings. `arrival` orders
    jobs by age; `waited` counts the calls that others got since the job's own last one.
    """

    job_id: int
    group: Hashable
    rows: int
    size: CallSize
    arrival: int
    rest: Rest = UNKNOWN
    waited: int = field(default=0)


class StepScheduler:
    """Chooses the jobs of the next call: those of the preferred job, unless others would wait too long.

    Preferred is, by `order`, the job with the least work left, the one with the least slack until its
    deadline, or the oldest. The first two prefer jobs that can still be done in time, and the older of two
    that are equal. All three finish jobs one after the other, since that beats
    advancing all of them at the same slow pace.

    `patience` bounds what that costs the others: **no job sits out more than `patience` calls in a row, or,
    where a round that serves every running job once takes more calls than that, more than one round**. With
    `patience` 1 groups take turns.

    It is kept by looking ahead: jobs that share a call wait together, and these calls are ordered by how long
    they waited. Once the call at place i (from 0) has waited `patience - i` calls, the first must run now,
    since otherwise the one at place i would come too late.

    `max_rows` says how many rows a call of a size may have now.
    """

    def __init__(
        self,
        *,
        max_rows: Callable[[CallSize], int],
        patience: int,
        batching: bool = True,
        order: NextCall = "oldest",
    ) -> None:
        self._max_rows = max_rows
        self._order = order
        self._patience = patience
        self._batching = batching
        self._entries: dict[int, ReadyJob] = {}
        self._paused: dict[int, ReadyJob] = {}
        self._arrivals = 0

    def __len__(self) -> int:
        return len(self._entries)

    def add(
        self, job_id: int, group: Hashable, rows: int, size: CallSize = UNSIZED, rest: Rest = UNKNOWN
    ) -> None:
        """Add a job that is ready to step; it is younger than all that were added before."""
        key = self._key(job_id, group)
        self._entries[job_id] = ReadyJob(job_id, key, rows, size, self._arrivals, rest)
        self._arrivals += 1

    def _key(self, job_id: int, group: Hashable) -> Hashable:
        """The group of a job: one of its own where jobs share no calls."""
        return group if self._batching else (group, job_id)

    def update(
        self, job_id: int, group: Hashable, rows: int, size: CallSize = UNSIZED, rest: Rest = UNKNOWN
    ) -> None:
        """Take note of what a job wants in its next step; one that ended is unknown and stays so."""
        entry = self._entries.get(job_id)
        if entry is not None:
            entry.group, entry.rows, entry.size = self._key(job_id, group), rows, size
            entry.rest = rest

    def pause(self, job_id: int) -> None:
        """Pass a job by until `resume`; it keeps its age."""
        if (entry := self._entries.pop(job_id, None)) is not None:
            self._paused[job_id] = entry

    def resume(self, job_id: int) -> None:
        """Let a paused job wait for its next step again, from now on; unknown ones stay so."""
        if (entry := self._paused.pop(job_id, None)) is not None:
            entry.waited = 0
            self._entries[job_id] = entry

    def remove(self, job_id: int) -> None:
        """Forget a job that ended; unknown ones are forgotten already."""
        self._entries.pop(job_id, None)
        self._paused.pop(job_id, None)

    def next_batch(self, now: float = 0.0) -> list[int]:
        """Return the ids of the jobs that share the next call, oldest first; empty if none waits.

        `now` is a time of the clock that deadlines are of. The jobs' rows add up to at most the size's bound,
        except for a single job that alone brings more. Within a group those that waited longest come first,
        so that a group larger than a call takes turns too.
        """
        if not self._entries:
            return []
        batch = self._choose(self._calls(), now)
        for entry in self._entries.values():
            entry.waited += 1
        for entry in batch:
            entry.waited = 0
        return [entry.job_id for entry in sorted(batch, key=lambda entry: entry.arrival)]

    def _choose(self, calls: list[list[ReadyJob]], now: float) -> list[ReadyJob]:
        if any(call[0].waited + place >= self._patience for place, call in enumerate(calls)):
            return calls[0]
        preferred = min(self._entries.values(), key=lambda entry: self._preference(entry, now))
        return next(call for call in calls if call[0].group == preferred.group)

    def _preference(self, entry: ReadyJob, now: float) -> tuple[bool, float, int]:
        """Where a job stands in the order; the least is the first."""
        rest = entry.rest
        too_late = now > rest.latest
        if self._order == "oldest" or too_late:
            return self._order != "oldest", 0.0, entry.arrival
        return False, rest.seconds if self._order == "least_work" else rest.latest, entry.arrival

    def _calls(self) -> list[list[ReadyJob]]:
        """The calls that would serve every job once, the longest-waiting first."""
        groups: defaultdict[Hashable, list[ReadyJob]] = defaultdict(list)
        for entry in sorted(self._entries.values(), key=_longest_waiting):
            groups[entry.group].append(entry)
        calls = [call for group in groups.values() for call in self._split(group)]
        return sorted(calls, key=lambda call: _longest_waiting(call[0]))

    def _split(self, group: Iterable[ReadyJob]) -> Iterable[list[ReadyJob]]:
        """Fill one call after the other with the jobs of a group, in their order."""
        call: list[ReadyJob] = []
        for entry in group:
            rows = sum(other.rows for other in call) + entry.rows
            if call and rows > self._max_rows(entry.size):
                yield call
                call = []
            call.append(entry)
        yield call


def _longest_waiting(entry: ReadyJob) -> tuple[int, int]:
    return -entry.waited, entry.arrival
