"""Models' hashes, computed one by one after the server is ready, on the thread `sdgrpc-model-hash`."""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sdgrpc.engine.hashing.files import FileHashes

logger = logging.getLogger(__name__)

PATIENCE = 10.0
"""Seconds that pictures of a model wait for its hash, from the first that does."""
CLOSING_SECONDS = 5.0
"""A disk that does not answer keeps no server from stopping."""


@dataclass(frozen=True, slots=True)
class WeightFiles:
    """Where a model's weights are: one file, or a folder and those of `paths` that are in it."""

    place: Path
    paths: tuple[Path, ...] = ()

    def named(self) -> list[tuple[str, Path]]:
        """The files of a folder by their paths in it, in order; a single file by no name."""
        if self.place.is_file():
            return [("", self.place)]
        inside = [path for path in self.paths if path.is_relative_to(self.place)]
        return sorted((path.relative_to(self.place).as_posix(), path) for path in inside)


@dataclass(slots=True)
class _Entry:
    files: WeightFiles
    sha256: str = ""
    done: threading.Event = field(default_factory=threading.Event)
    deadline: float | None = None


class ModelHashes:
    """The SHA-256 of each model: of its file, or of the lines that `sha256sum` prints for a folder's files.

    Models without files, such as those that were made in memory, have none. Thread safe.
    """

    def __init__(
        self, models: Mapping[str, WeightFiles], files: FileHashes, *, patience: float = PATIENCE
    ) -> None:
        self._entries = {name: _Entry(place) for name, place in models.items()}
        self._files, self._patience = files, patience
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to hash, unless that was done already."""
        with self._lock:
            if self._thread is None and self._entries and not self._closing.is_set():
                self._thread = threading.Thread(target=self._work, name="sdgrpc-model-hash", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Stop soon; who waits goes on without a hash. May be called twice."""
        self._closing.set()
        for entry in self._entries.values():
            entry.done.set()
        if self._thread is not None:
            self._thread.join(CLOSING_SECONDS)

    def known(self, name: str) -> str:
        """The hash of a model, as far as it was computed; empty until then."""
        entry = self._entries.get(name)
        return entry.sha256 if entry else ""

    def awaited(self, name: str) -> str:
        """The hash of a model, which is computed next and waited for; empty if that takes too long.

        So a picture's bytes do not depend on when it was drawn, but for those of a slow disk's first seconds.
        """
        entry = self._entries.get(name)
        if entry is None:
            return ""
        self.start()
        with self._lock:
            now = time.monotonic()
            entry.deadline = now + self._patience if entry.deadline is None else entry.deadline
            left = entry.deadline - now
        entry.done.wait(max(0.0, left))
        return entry.sha256

    def _next(self) -> tuple[str, _Entry] | None:
        """The model that is waited for longest, else the first in the list."""
        with self._lock:
            left = [(name, entry) for name, entry in self._entries.items() if not entry.done.is_set()]
            return min(left, key=lambda one: one[1].deadline or float("inf"), default=None)

    def _work(self) -> None:
        while not self._closing.is_set() and (found := self._next()):
            name, entry = found
            try:
                entry.sha256 = self._hash(entry.files)
            except OSError as error:
                logger.warning("model %s has no hash: %s", name, error)
            entry.done.set()

    def _hash(self, files: WeightFiles) -> str:
        lines = []
        for name, path in files.named():
            sha256 = self._files.sha256(path, self._closing.is_set)
            if not sha256:
                return ""
            if not name:
                return sha256
            lines.append(f"{sha256}  {name}\n")
        return hashlib.sha256("".join(lines).encode()).hexdigest() if lines else ""
