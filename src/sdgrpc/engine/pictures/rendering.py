"""Previews made when somebody reads them, away from the threads that draw. No torch here."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from sdgrpc.domain import Event, Progress
from sdgrpc.engine.stream import Item
from sdgrpc.engine.supervision.call_times import CallShape
from sdgrpc.engine.supervision.supervisor import Supervisor

RENDERERS = 2


class Renderers:
    """Two threads that render previews, watched over."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._threads = ThreadPoolExecutor(RENDERERS, "sdgrpc-preview")

    async def rendered(self, item: Item) -> Event:
        """Return an event that is read now, with its previews."""
        event, render = item.event, item.render
        if not isinstance(event, Progress) or render is None:
            return event
        loop, watched = asyncio.get_running_loop(), self._supervisor.run
        previews = await loop.run_in_executor(self._threads, watched, CallShape("preview"), render)
        return replace(event, previews=previews)

    def close(self) -> None:
        """End the threads; blocks for what they do now. May be called twice."""
        self._threads.shutdown(wait=not self._supervisor.failed)
