"""What a job will take, from the calls of its model and size that were measured."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from sdgrpc.domain import Task
from sdgrpc.engine.timing.rows import rows_alone, rows_of_passes

# Calls before their time counts as known: a first one may allocate, choose kernels, wait for a neighbour.
ENOUGH = 3
KEPT_CALLS = 16
# Sizes that are remembered, and for how long: refused jobs are not measured, so a bound that is wrong, or
# was right while the machine was busy, must not refuse them for good.
REMEMBERED = 128
KEPT_SECONDS = 120.0

SizeKey = tuple[str, int, int]


@dataclass(slots=True)
class _Measured:
    """The last calls of a size by their rows, its last decodings, and when the latest was."""

    latest: float
    calls: dict[int, deque[float]] = field(default_factory=dict)
    images: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT_CALLS))
    call_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds of a job that has the device to itself: its `steps`, and its images' decoding and file."""

    steps: float
    images: float

    @property
    def seconds(self) -> float:
        """All of it."""
        return self.steps + self.images


class Estimates:
    """Remembers how long UNet calls and decodings took. Thread safe.

    Every answer leans to the short side: the fastest of the last calls counts, a step counts as one call
    (Heun takes two), fusing and encoding count as nothing. A job that is refused by it would really be late.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._sizes: OrderedDict[SizeKey, _Measured] = OrderedDict()
        # Each step of a job asks for what is left of it; which rows there are does not change.
        self._rows = lru_cache(REMEMBERED)(rows_of_passes)

    def called(self, task: Task, rows: int, seconds: float, call_bytes: int = 0) -> None:
        """Note a UNet call of `rows` rows for jobs of the task's model and size, and the memory it took."""
        with self._lock:
            measured = self._measured(task)
            measured.calls.setdefault(rows, deque(maxlen=KEPT_CALLS)).append(seconds)
            measured.call_bytes = max(measured.call_bytes, call_bytes)

    def step_bytes(self, task: Task) -> int:
        """Return the most memory that a call of the task's model and size took lately; 0 if unknown."""
        with self._lock:
            sizes = [self._sizes.get(_key(each)) for each in task.passes]
            return max(0 if measured is None else measured.call_bytes for measured in sizes)

    def finished(self, task: Task, seconds: float) -> None:
        """Note how long it took to decode and write all images of a task."""
        with self._lock:
            self._measured(task.passes[-1]).images.append(seconds / task.sampling.image_count)

    def alone(self, task: Task) -> Cost | None:
        """Return what the whole task takes if nothing else runs; None where its size is not known."""
        with self._lock:
            return self._cost(task, task.step_count)

    def left(self, task: Task, steps: int) -> float:
        """Return what the last `steps` steps of a task and its images take alone; 0 if unknown."""
        with self._lock:
            cost = self._cost(task, steps)
            return cost.seconds if cost else 0.0

    def _cost(self, task: Task, steps: int) -> Cost | None:
        seconds = 0.0
        for one, rows_left in self._last(task, steps):
            known = self._known(one)
            if not known:
                return None
            seconds += sum(_seconds(known, rows) for rows in rows_left)
        last = task.passes[-1]
        images = self._sizes[_key(last)].images if self._known(last) else ()
        each = min(images) if len(images) >= ENOUGH else 0.0
        return Cost(seconds, task.sampling.image_count * each)

    def share(self, task: Task, steps: int) -> float:
        """Return what the last `steps` steps of a task cost in the best calls to share; 0 if unknown."""
        with self._lock:
            return sum(
                sum(left) * min((call / rows for rows, call in self._known(one).items()), default=0.0)
                for one, left in self._last(task, steps)
            )

    def _last(self, task: Task, steps: int) -> Sequence[tuple[Task, Sequence[int]]]:
        """Each pass with the rows of those of its steps that are among the last `steps`; none without one."""
        found, first = [], max(task.step_count - steps, 0)
        for each, rows in zip(task.passes, self._rows(rows_alone(task)), strict=True):
            if rows[first:]:
                found.append((each, rows[first:]))
            first = max(first - len(rows), 0)
        return found

    def _known(self, task: Task) -> dict[int, float]:
        measured = self._sizes.get(_key(task))
        if measured is None or measured.latest < self._clock() - KEPT_SECONDS:
            return {}
        return {rows: min(calls) for rows, calls in measured.calls.items() if len(calls) >= ENOUGH}

    def _measured(self, task: Task) -> _Measured:
        """The size's record, as the one used last; what is too old is forgotten."""
        now, key = self._clock(), _key(task)
        known = self._sizes.pop(key, None)
        if known is None or known.latest < now - KEPT_SECONDS:
            known = _Measured(now)
        known.latest = now
        self._sizes[key] = known
        if len(self._sizes) > REMEMBERED:
            self._sizes.popitem(last=False)
        return known


def _seconds(known: Mapping[int, float], rows: int) -> float:
    """The seconds of a call: measured, or in proportion to that with the nearest number of rows."""
    nearest = min(known, key=lambda other: abs(other - rows))
    return known[nearest] * rows / nearest


def _key(task: Task) -> SizeKey:
    return task.model, task.width, task.height
