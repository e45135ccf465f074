"""A lock for each of many things, there only while somebody wants it."""

from __future__ import annotations

import threading
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(slots=True)
class _KeyedLock:
    lock: threading.Lock = field(default_factory=threading.Lock)
    wanted_by: int = 0


class KeyedLocks:
    """Lets one thread at a time do something about a key, and others meanwhile about other keys.

    The lock of a key may be held for as long as the work takes; this object's own only to look one up.
    """

    def __init__(self) -> None:
        self._locks: dict[Hashable, _KeyedLock] = {}
        self._lock = threading.Lock()

    @contextmanager
    def of(self, key: Hashable) -> Iterator[None]:
        """Wait until no other thread is inside with this key. Not to be entered twice by one thread."""
        with self._lock:
            entry = self._locks.setdefault(key, _KeyedLock())
            entry.wanted_by += 1
        try:
            with entry.lock:
                yield
        finally:
            with self._lock:
                entry.wanted_by -= 1
                if not entry.wanted_by:
                    del self._locks[key]

    def __len__(self) -> int:
        """Return how many keys are wanted now."""
        with self._lock:
            return len(self._locks)
