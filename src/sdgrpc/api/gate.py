"""Who may come in: calls are let in once there is an engine, counted, and refused when the server leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from sdgrpc.engine.base import Engine
from sdgrpc.errors import Draining, Loading


class Gate:
    """One for all services. `closing` is set once the server leaves."""

    def __init__(self) -> None:
        self.closing = asyncio.Event()
        self._engine: Engine | None = None
        self._calls = 0
        self._idle = asyncio.Event()
        self._idle.set()

    def open(self, engine: Engine) -> None:
        """Let calls in from now on."""
        self._engine = engine

    def close(self) -> None:
        """Refuse calls from now on; those that are inside go on."""
        self.closing.set()

    async def idle(self) -> None:
        """Return when no call that was counted is inside."""
        await self._idle.wait()

    def engine(self) -> Engine:
        """Return the engine for a call that need not be waited for.

        Raises:
            Draining: the server leaves.
            Loading: there is no engine yet.

        """
        if self.closing.is_set():
            raise Draining("the server is stopping; send the job to another", retry_after=1.0)
        if self._engine is None:
            raise Loading("the model is still loading; try again soon", retry_after=2.0)
        return self._engine

    @contextmanager
    def enter(self) -> Iterator[Engine]:
        """Count a call from here to its end; raises as `engine` does."""
        engine = self.engine()
        self._calls += 1
        self._idle.clear()
        try:
            yield engine
        finally:
            self._calls -= 1
            if self._calls == 0:
                self._idle.set()
