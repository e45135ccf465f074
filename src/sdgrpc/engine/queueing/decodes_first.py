"""Whose turn it is where steps and decoding share the cores: what ends a job goes first.

Two kinds of work that share all cores both take as long as the two together. One after the other the first
takes its own time alone and the second no longer than before, so that the mean is less.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

SOON = 0.05
"""Seconds that a step waits for a decoding that was expected; of a cancelled job there is none."""
LONGEST = 5.0
"""Seconds that anybody waits for those that are going on: one with many pictures, or one that hangs, holds up
nobody for long."""


class DecodesFirst:
    """One decodes after the other, and no step begins before those that were asked for. Thread safe.

    A step that has begun goes on; decoding never waits for one.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._one = threading.Lock()
        self._asked = self._ended = 0
        self._expected, self._until = 0, 0.0

    def expect(self) -> None:
        """Say that a job's steps are done, so that its decoding begins before the next step does."""
        with self._changed:
            self._expected, self._until = self._asked + 1, time.monotonic() + SOON

    def wait(self) -> None:
        """Return when a step may begin."""
        with self._changed:
            soon = self._until - time.monotonic()
            if soon > 0:
                self._changed.wait_for(lambda: self._asked >= self._expected, soon)
            asked = self._asked
            self._changed.wait_for(lambda: self._ended >= asked, LONGEST)

    @contextmanager
    def decoding(self) -> Iterator[None]:
        """Decode, once no other does or has for long."""
        with self._changed:
            self._asked += 1
            self._changed.notify_all()
        alone = self._one.acquire(timeout=LONGEST)
        try:
            yield
        finally:
            if alone:
                self._one.release()
            with self._changed:
                self._ended += 1
                self._changed.notify_all()
