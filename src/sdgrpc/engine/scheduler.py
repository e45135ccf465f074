"""Which jobs run in the next UNet call. Works on small records; never sees a tensor."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field


@dataclass(slots=True)
class Entry:
    """A job that waits for its next step.

    `group` is equal for jobs that can share a call, `rows` how many latents the job brings. `arrival` orders
    jobs by age; `waited` counts the calls that others got since the job's own last one.
    """

    job_id: int
    group: Hashable
    rows: int
    arrival: int
    waited: int = field(default=0)


class StepScheduler:
    """Chooses the jobs of the next call: the oldest job's group, unless another has waited too long.

    Serving the oldest group first keeps the mean latency low, since finishing jobs one after the other
    beats advancing all of them at the same slow pace. `patience` bounds what that costs the others: a job
    that sat out `patience` calls comes next, the longest-waiting first. With `patience` 1 groups take turns.
    """

    def __init__(self, *, max_rows: int, patience: int, batching: bool = True) -> None:
        self._max_rows = max_rows
        self._patience = patience
        self._batching = batching
        self._entries: dict[int, Entry] = {}
        self._arrivals = 0

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, job_id: int, group: Hashable, rows: int) -> None:
        """Add a job that is ready to step; it is younger than all that were added before."""
        key = group if self._batching else (group, job_id)
        self._entries[job_id] = Entry(job_id, key, rows, self._arrivals)
        self._arrivals += 1

    def remove(self, job_id: int) -> None:
        """Forget a job that ended; unknown ones are forgotten already."""
        self._entries.pop(job_id, None)

    def next_batch(self) -> list[int]:
        """Return the ids of the jobs that share the next call, oldest first; empty if none waits.

        Their rows add up to at most `max_rows`, except for a single job that alone brings more. Within a
        group those that waited longest come first, so that a group larger than a call takes turns too.
        """
        if not self._entries:
            return []
        batch = self._fill(self._choose_group())
        for entry in self._entries.values():
            entry.waited += 1
        for entry in batch:
            entry.waited = 0
        return [entry.job_id for entry in sorted(batch, key=lambda entry: entry.arrival)]

    def _choose_group(self) -> list[Entry]:
        longest = max(self._entries.values(), key=lambda entry: (entry.waited, -entry.arrival))
        oldest = min(self._entries.values(), key=lambda entry: entry.arrival)
        chosen = longest if longest.waited >= self._patience else oldest
        return [entry for entry in self._entries.values() if entry.group == chosen.group]

    def _fill(self, group: Iterable[Entry]) -> list[Entry]:
        batch: list[Entry] = []
        rows = 0
        for entry in sorted(group, key=lambda entry: (-entry.waited, entry.arrival)):
            if batch and rows + entry.rows > self._max_rows:
                break
            batch.append(entry)
            rows += entry.rows
        return batch
