"""The cache of parsed files."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Collection

from sdgrpc.lora.dialects.adapter import Adapter
from sdgrpc.machine.keyed_locks import KeyedLocks


class ParsedFiles:
    """The adapters parsed last, by hash, bounded in bytes. Thread safe; a file is parsed once at a time.

    Those that somebody waits for (`keep`) are not dropped for others.
    """

    def __init__(self, capacity_bytes: int) -> None:
        self.capacity_bytes = capacity_bytes
        self._kept: Collection[str] = ()
        self._adapters: OrderedDict[str, Adapter] = OrderedDict()
        self._lock = threading.Lock()
        self._parsing = KeyedLocks()

    def get(self, sha256: str, parse_file: Callable[[], Adapter]) -> Adapter:
        """Return the adapter of that hash, made by `parse_file` if it is not there."""
        if known := self._known(sha256):
            return known
        with self._parsing.of(sha256):
            if known := self._known(sha256):
                return known
            adapter = parse_file()
            self.put(sha256, adapter)
            return adapter

    def holds(self, sha256: str) -> bool:
        """Tell whether the adapter of that hash is there."""
        with self._lock:
            return sha256 in self._adapters

    def keep(self, hashes: Collection[str]) -> None:
        """Drop none of these from now on, those that come later included, and no longer those named before.

        They should take less than `capacity_bytes`: beside them there is room for one other at least.
        """
        with self._lock:
            self._kept = hashes
            self._drop()

    def _known(self, sha256: str) -> Adapter | None:
        """Return what is there, as the one used last."""
        with self._lock:
            if sha256 in self._adapters:
                self._adapters.move_to_end(sha256)
            return self._adapters.get(sha256)

    def put(self, sha256: str, adapter: Adapter) -> None:
        """Keep an adapter as the one used last, and drop those used longest ago beyond the bound."""
        with self._lock:
            self._adapters[sha256] = adapter
            self._adapters.move_to_end(sha256)
            self._drop()

    def _drop(self) -> None:
        """Drop what was used longest ago beyond the bound, except the last and those kept. Needs the lock."""
        held = sum(each.nbytes for each in self._adapters.values())
        for sha256 in list(self._adapters)[:-1]:
            if held <= self.capacity_bytes:
                break
            if sha256 not in self._kept:
                held -= self._adapters.pop(sha256).nbytes
