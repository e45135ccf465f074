"""The cache of parsed files."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable

from sdgrpc.lora.dialects.adapter import Adapter
from sdgrpc.machine.keyed_locks import KeyedLocks


class ParsedFiles:
    """The adapters parsed last, by hash, bounded in bytes. Thread safe; a file is parsed once at a time."""

    def __init__(self, capacity_bytes: int) -> None:
        self._capacity = capacity_bytes
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
            held = sum(kept.nbytes for kept in self._adapters.values())
            while held > self._capacity and len(self._adapters) > 1:
                held -= self._adapters.popitem(last=False)[1].nbytes
