"""Which calls of the engine's threads run now, how long such calls took, and which should have returned."""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

# Shapes whose longest calls are remembered.
REMEMBERED = 512


@dataclass(frozen=True, slots=True)
class CallShape:
    """What decides how long a call takes: what is done, by which model, and the numbers of the work.

    `patience` multiplies the least time after which it counts as stuck, for work whose length nothing tells.
    """

    verb: str
    model: str = ""
    shape: tuple[int, ...] = ()
    patience: float = 1.0

    @property
    def work(self) -> int:
        """The product of the shape, by which calls of one verb and model compare."""
        return math.prod(self.shape)


@dataclass(slots=True)
class RunningCall:
    """A call that has not returned; `began` and `beaten` are times of the watch that saw it."""

    shape: CallShape
    began: float
    beaten: float
    thread: str = field(default_factory=lambda: threading.current_thread().name)


class CallTimes:
    """Judges whether a call has taken too long. Takes no lock: every step is one operation of a dictionary.

    A call is stuck after `factor` times the longest of its shape, but not before `least` seconds. Of a shape
    that never returned the others of its verb and model tell: twice the work may take four times as long,
    since attention grows with the square of the pixels.
    """

    def __init__(self, *, least: float, factor: float) -> None:
        self._least, self._factor = least, factor
        self._running: dict[int, RunningCall] = {}
        self._longest: dict[CallShape, float] = {}
        self._ids = itertools.count()

    def begin(self, call: RunningCall) -> int:
        """Note a call and return its number."""
        number = next(self._ids)
        self._running[number] = call
        return number

    def end(self, number: int) -> None:
        """Forget a call, however it ended."""
        self._running.pop(number, None)

    def returned(self, shape: CallShape, seconds: float) -> None:
        """Note how long a call took that did what it should."""
        self._longest[shape] = max(seconds, self._longest.pop(shape, 0.0))
        if len(self._longest) > REMEMBERED:
            self._longest.pop(next(iter(self._longest)), None)

    def allowed(self, shape: CallShape) -> float:
        """Return the seconds after which a call of this shape is stuck."""
        expected = self._longest.get(shape)
        if expected is None:
            expected = max(self._scaled(shape), default=0.0)
        return max(self._least * shape.patience, self._factor * expected)

    def silence(self, now: float) -> float:
        """Return for how long by now a running call has given no sign of life, at most; 0 without one."""
        return max((now - call.beaten for call in list(self._running.values())), default=0.0)

    def stuck(self, now: float) -> RunningCall | None:
        """Return a call that should have returned or given a sign of life by now, if there is one."""
        for call in list(self._running.values()):
            if now - call.beaten > self.allowed(call.shape):
                return call
        return None

    def _scaled(self, shape: CallShape) -> Iterator[float]:
        for known, seconds in list(self._longest.items()):
            if (known.verb, known.model) == (shape.verb, shape.model):
                yield seconds * max(1.0, shape.work / max(known.work, 1)) ** 2
