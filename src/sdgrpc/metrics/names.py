"""Names from outside as labels, of which there may not be ever more."""

from __future__ import annotations

import threading

MOST_NAMES = 1000
OTHER = "other"


class BoundedNames:
    """Lets the first `most` names through and calls all later ones `other`. Thread safe."""

    def __init__(self, most: int = MOST_NAMES) -> None:
        self._most = most
        self._names: set[str] = set()
        self._lock = threading.Lock()

    def of(self, name: str) -> str:
        """Return what to call it."""
        with self._lock:
            if name not in self._names and len(self._names) >= self._most:
                return OTHER
            self._names.add(name)
            return name
