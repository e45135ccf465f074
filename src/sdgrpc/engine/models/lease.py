"""A use of a model outside the loop."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

from sdgrpc.engine.queueing.turns import Waiting

M = TypeVar("M")


class ModelLease(Generic[M]):
    """A use of a model outside the loop; `model` gives it once it is there. Whoever made it calls `leave`."""

    def __init__(self, waiting: Waiting, leave: Callable[[int], None]) -> None:
        self.waiting = waiting
        self.model: Future[M] = Future()
        self._leave = leave

    def leave(self) -> None:
        """Let the model go, or stop waiting for it. May be called twice."""
        self._leave(self.waiting.waiting_id)
