"""The prompts that were encoded last, bounded in bytes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """A prompt: `hidden` `[1, 77 n, D]` and, of SDXL, `pooled` `[1, P]`. Nobody writes them."""

    hidden: Tensor
    pooled: Tensor | None = None

    @property
    def nbytes(self) -> int:
        """Bytes that the tensors hold."""
        return self.hidden.nbytes + (0 if self.pooled is None else self.pooled.nbytes)


@dataclass(frozen=True, slots=True)
class PromptCacheStats:
    """What the cache holds, and how often a prompt was there or was not."""

    prompts: int
    bytes: int
    hits: int
    misses: int


class PromptCache:
    """Encoded prompts by key; those used longest ago make room. Thread safe.

    The key says everything that an encoded prompt depends on. With a capacity of 0 nothing is kept.
    """

    def __init__(self, capacity_bytes: int) -> None:
        self._capacity = capacity_bytes
        self._prompts: OrderedDict[Hashable, Encoded] = OrderedDict()
        self._bytes = self._hits = self._misses = 0
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> Encoded | None:
        """Return the prompt of that key, as the one used last; None if it is not there."""
        with self._lock:
            found = self._prompts.get(key)
            if found is None:
                self._misses += 1
            else:
                self._hits += 1
                self._prompts.move_to_end(key)
            return found

    def put(self, key: Hashable, encoded: Encoded) -> None:
        """Keep a prompt as the one used last, unless it is larger than all that may be kept."""
        if encoded.nbytes > self._capacity:
            return
        with self._lock:
            known = self._prompts.pop(key, None)
            self._prompts[key] = encoded
            self._bytes += encoded.nbytes - (0 if known is None else known.nbytes)
            while self._bytes > self._capacity:
                self._bytes -= self._prompts.popitem(last=False)[1].nbytes

    def stats(self) -> PromptCacheStats:
        """Return what is held now."""
        with self._lock:
            return PromptCacheStats(len(self._prompts), self._bytes, self._hits, self._misses)
