"""What the API asks of an engine."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Protocol

from sdgrpc.domain import EngineStatus, Event, ModelInfo, ModelState, Task


class Engine(Protocol):
    """Runs tasks. Every method may be called from the event loop and returns without blocking it."""

    @property
    def models(self) -> Sequence[ModelInfo]:
        """The models that tasks can name, loaded or not; the first is the default."""
        ...

    def model_states(self) -> Sequence[ModelState]:
        """Tell for each of `models`, in their order, whether its weights are in memory, and their size."""
        ...

    def submit(self, task: Task) -> AsyncGenerator[Event, None]:
        """Queue `task` and yield its events: `Accepted Prepared (Progress | ImageReady)* Finished`.

        The job is queued at the first `anext`. Closing the generator (`aclose`) drops the job before its
        next step and gives back all it held. Reading slowly loses previews, nothing else.

        Raises:
            QueueFull: the queue is full, at once.
            Draining: the engine is closing.
            ModelNotFound, LoraNotFound: before `Accepted`.
            LoraError, OutOfMemory, NotAnInpaintingModel: later, as the job meets them.

        """
        ...

    def status(self) -> EngineStatus:
        """Return the engine's load now."""
        ...

    async def drain(self) -> None:
        """Take no new jobs and return when the running and queued ones have ended."""
        ...

    async def close(self) -> None:
        """Drop every job, stop the threads, release the models. May be called twice."""
        ...
