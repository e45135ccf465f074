"""Who may come in: calls are let in once there is an engine, counted, and refused when the server leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from sdgrpc.engine.base import Engine
from sdgrpc.errors import Draining, EngineFailed, Loading

ENDING_SECONDS = 0.2


class Gate:
    """One for all services. `closing` is set once calls are refused for good.

    Before that a server that leaves may let calls in for a while: `leaving` is true from then on.
    """

    def __init__(self) -> None:
        self.closing = asyncio.Event()
        self.leaving = False
        self._failed = False
        self._inside: set[asyncio.Task[object]] = set()
        self._engine: Engine | None = None
        self._calls = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def is_welcoming(self) -> bool:
        """Whether new jobs are welcome."""
        return self._engine is not None and not self.leaving

    def open(self, engine: Engine) -> None:
        """Let calls in from now on."""
        self._engine = engine

    def leave(self) -> None:
        """Say that the server leaves; calls are still let in."""
        self.leaving = True

    def close(self) -> None:
        """Refuse calls from now on; those that are inside go on."""
        self.leaving = True
        self.closing.set()

    async def fail(self) -> None:
        """Refuse calls from now on, and end those that do not end soon: what they wait for may never come."""
        self._failed = True
        self.close()
        await asyncio.sleep(ENDING_SECONDS)  # the engine ends jobs itself, and a write is better not cut off
        for task in self._inside:
            task.cancel()

    async def idle(self) -> None:
        """Return when no call that was counted is inside."""
        await self._idle.wait()

    def engine(self) -> Engine:
        """Return the engine for a call that need not be waited for.

        Raises:
            EngineFailed: it cannot go on.
            Draining: the server leaves.
            Loading: there is no engine yet.

        """
        if self._failed:
            raise _failure()
        if self.closing.is_set():
            raise Draining("the server is stopping; send the job to another", retry_after=1.0)
        if self._engine is None:
            raise Loading("the model is still loading; try again soon", retry_after=2.0)
        return self._engine

    @contextmanager
    def enter(self) -> Iterator[Engine]:
        """Count a call from here to its end; raises as `engine` does, also later."""
        engine = self.engine()
        with self.stay():
            yield engine

    @contextmanager
    def visit(self) -> Iterator[Engine]:
        """Let a call in that need not be waited for, but must not wait for an engine that failed."""
        engine = self.engine()
        with self._inside_task():
            yield engine

    @contextmanager
    def stay(self) -> Iterator[None]:
        """Count a call that needs no engine, even while the server drains; raises EngineFailed."""
        if self._failed:
            raise _failure()
        with self._inside_task():
            self._calls += 1
            self._idle.clear()
            try:
                yield
            finally:
                self._calls -= 1
                if self._calls == 0:
                    self._idle.set()

    @contextmanager
    def _inside_task(self) -> Iterator[None]:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("calls are tasks")
        self._inside.add(task)
        try:
            yield
        except asyncio.CancelledError:
            if not self._failed:
                raise
            task.uncancel()
            raise _failure() from None
        finally:
            self._inside.discard(task)


def _failure() -> EngineFailed:
    return EngineFailed("the engine failed and the server is ending; send the job to another")
