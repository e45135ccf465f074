"""The engine's recent speed: its calls over a sliding window, and how long its last jobs took."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass


class Meter:
    """Counts UNet calls and their rows over the last `window` seconds. Thread safe."""

    def __init__(self, *, window: float = 10.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._window = window
        self._clock = clock
        self._lock = threading.Lock()
        self._calls: deque[tuple[float, int, int]] = deque()

    def record(self, jobs: int, rows: int) -> None:
        """Note one call that advanced `jobs` jobs with `rows` latents."""
        now = self._clock()
        with self._lock:
            self._calls.append((now, jobs, rows))
            self._forget(now)

    def rates(self) -> tuple[float, float]:
        """Return (rows per call, job steps per second) over the window; zeros when idle."""
        now = self._clock()
        with self._lock:
            self._forget(now)
            if not self._calls:
                return 0.0, 0.0
            span = max(now - self._calls[0][0], 1e-3)
            rows = sum(rows for _, _, rows in self._calls) / len(self._calls)
            return rows, sum(jobs for _, jobs, _ in self._calls) / span

    def _forget(self, now: float) -> None:
        while self._calls and self._calls[0][0] < now - self._window:
            self._calls.popleft()


@dataclass(slots=True)
class Turnover:
    """Counts finished jobs, and keeps a mean of the seconds they took that follows the last ones."""

    jobs: int = 0
    mean_seconds: float = 1.0

    def note(self, seconds: float, *, counted: bool) -> None:
        """Take in a job that finished, `seconds` after it was begun."""
        self.jobs += counted
        self.mean_seconds += 0.2 * (seconds - self.mean_seconds)
