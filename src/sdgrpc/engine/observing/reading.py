"""Tells the time in which a job's LoRA files were read from that in which they were fused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from time import monotonic

from sdgrpc.engine.observing.observer import JobObserver, Stage
from sdgrpc.lora.dialects.adapter import Adapter
from sdgrpc.lora.store.contents import FoundLora


class Reading:
    """Measures reading within one fuse; files that are parsed already take next to no time.

    Of these `was_ahead` tells which were read while the job waited.
    """

    def __init__(self, was_ahead: Callable[[FoundLora], bool]) -> None:
        self._was_ahead = was_ahead
        self._seconds, self._ahead = 0.0, 0

    def measured(self, file: FoundLora) -> FoundLora:
        """Return the file with its reading measured."""

        def load() -> Adapter:
            began = monotonic()
            self._ahead += self._was_ahead(file)
            try:
                return file.load()
            finally:
                self._seconds += monotonic() - began

        return replace(file, load=load)

    @contextmanager
    def and_fusing(self, observer: JobObserver, *, of: int) -> Iterator[None]:
        """Tell how long the files were read and how long the rest of the block took, if there are any."""
        began = monotonic()
        try:
            yield
        finally:
            if self._ahead:
                observer.read_ahead(self._ahead)
            if of:
                observer.took(Stage.READ, self._seconds)
                observer.took(Stage.FUSED, monotonic() - began - self._seconds)
