"""Which replicas there are and how they are; those that die or hang are started again."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any

from sdgrpc.domain import EngineStatus, ModelState
from sdgrpc.engine.cluster.fleet import Fleet, ReplicaDied
from sdgrpc.engine.cluster.messages.carrying import Carried
from sdgrpc.engine.cluster.replica import Report, Served
from sdgrpc.engine.cluster.reports import Reports
from sdgrpc.engine.cluster.routing.holdings import Wanted
from sdgrpc.engine.cluster.routing.router import Router
from sdgrpc.engine.cluster.set_names import SetNames
from sdgrpc.errors import EngineFailed

logger = logging.getLogger(__name__)

REPORT_SECONDS = 0.25
MOST_STARTS = 3
"""How often a replica may die while it starts before no job waits for it any more."""
SLOWEST_START = 60.0
"""The longest pause before another try, in seconds."""


class Keeper:
    """Keeps replicas, and the router's knowledge of them. On the server's event loop, once `open` returned.

    Args:
        fleet: has their processes.
        router: is told of those that may be chosen.
        sets: knows the sets' names.
        patience: a replica that does not answer for so many seconds hangs, and is ended; 0 waits for ever.

    """

    def __init__(self, fleet: Fleet, router: Router, sets: SetNames, patience: float) -> None:
        self._fleet, self._router, self._sets = fleet, router, sets
        self._patience = patience or None
        self._reports = Reports()
        self._leaving: dict[str, asyncio.Event] = {}
        self._failures: dict[str, int] = {}
        self._changed = asyncio.Event()
        self._work: set[asyncio.Task[None]] = set()
        self._inside: Counter[str] = Counter()
        self._number = 0
        self.is_closed = False

    @property
    def names(self) -> Sequence[str]:
        """The replicas that are there, started ones included, without those that leave."""
        return [name for name, leaving in self._leaving.items() if not leaving.is_set()]

    @property
    def ready(self) -> Sequence[str]:
        """Those that take jobs."""
        return list(self._router.loads)

    def begin(self, count: int) -> list[str]:
        """Start so many replicas; returns their names."""
        names = [f"replica-{self._number + one}" for one in range(count)]
        self._number += count
        for name in names:
            self._leaving[name] = asyncio.Event()
            self._fleet.start(name)
        return names

    async def opened(self) -> Served:
        """Wait for the first start of every replica, and return what they serve.

        Raises:
            SdgrpcError: what kept one from opening.
            EngineFailed: one died.

        """
        served = await asyncio.gather(*map(self._opened, self.names))
        return served[0]

    async def _opened(self, name: str) -> Served:
        try:
            answer = await self._fleet.served(name)
            if isinstance(answer, Carried):
                raise answer.error()
            self._welcome(name, await self._fleet.report(name))
        except ReplicaDied:
            raise EngineFailed(f"{name} died while it started; the log says why") from None
        return answer

    def _welcome(self, name: str, report: Report) -> None:
        """Let a replica be chosen."""
        self._failures.pop(name, None)
        self._router.add(name)
        self.note(name, report)

    def note(self, name: str, report: Report) -> None:
        """Keep a report, and have the router know what the replica holds."""
        self._reports.note(name, report)
        held = self._sets.held(name, report.status.resident_sets, report.states)
        self._router.report(name, replace(held, is_full=report.is_full))
        self._tell_change()

    def _tell_change(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def changed(self) -> None:
        """Wait until a replica came, went or reported.

        Raises:
            EngineFailed: none is left, and none can be started.

        """
        if self._is_lost():
            raise EngineFailed(f"no replica is left: each died {MOST_STARTS} times while it started")
        await self._changed.wait()

    def _is_lost(self) -> bool:
        return (
            bool(self.names)
            and not self.ready
            and all(self._failures.get(name, 0) >= MOST_STARTS for name in self.names)
        )

    def enter(self, name: str, wanted: Wanted) -> asyncio.Event:
        """Count a job on a replica; it must `leave`; once the event is set it moves, if it has not begun."""
        self._inside[name] += 1
        self._router.begin(name, wanted)
        self._sets.begin(name, wanted)
        return self._leaving[name]

    def leave(self, name: str, wanted: Wanted) -> None:
        """Count a job no more."""
        self._inside[name] -= 1
        self._router.end(name)
        self._sets.end(name, wanted)
        if name in self._leaving and self._leaving[name].is_set():
            self._tell_change()

    async def follow(self, on_change: Callable[[], None]) -> None:
        """Ask the replicas how they are; returns once none is left and none can be started.

        `on_change` is called where one came, went or reported.
        """
        for name in self.names:
            self._in_background(self._follow(name))
        while not self._is_lost():
            await self._changed.wait()
            on_change()

    async def _follow(self, name: str) -> None:
        """Ask one until it has left."""
        while name in self._leaving and not self.is_closed:
            await asyncio.sleep(REPORT_SECONDS)
            if name in self._reports:
                try:
                    self.note(name, await self._report(name))
                except ReplicaDied:
                    self.lost(name)
                except TimeoutError:
                    logger.error("%s gave no answer for %s s: it is ended", name, self._patience)
                    self.lost(name)

    async def _report(self, name: str) -> Report:
        # Not wait_for: before Python 3.12 it may lose that it is cancelled.
        async with asyncio.timeout(self._patience):
            return await self._fleet.report(name)

    def lost(self, name: str) -> None:
        """Choose a dead replica no more, and start another in its place; once for each death."""
        if name not in self._reports or self.is_closed:
            return
        self._reports.forget(name)
        if self._leaving[name].is_set():
            self._fleet.stop(name)
        else:
            self._router.remove(name)
            self._fleet.start(name)
            self._in_background(self._return(name))
        self._tell_change()

    async def _return(self, name: str) -> None:
        """Choose a replica again once it is ready."""
        while name in self._leaving and not self.is_closed:
            try:
                await self._opened(name)
            except Exception as error:  # of whatever it died: it may be another next time
                failures = self._failures[name] = self._failures.get(name, 0) + 1
                logger.error("%s did not start: %s", name, error)
                self._tell_change()
                await asyncio.sleep(min(2.0**failures, SLOWEST_START))
                self._fleet.start(name)
            else:
                logger.warning("%s is there again", name)
                return

    def add(self, count: int) -> None:
        """Start so many replicas more while the server runs."""
        for name in self.begin(count):
            self._in_background(self._return(name))
            self._in_background(self._follow(name))

    def of(self, name: str) -> list[str]:
        """Return the replicas that are there of a name, or on the node of that address."""
        on_node = self._reports.on_node(name)
        return [one for one in self.names if one == name or one in on_node]

    def idlest(self) -> str:
        """Return which of those that take jobs has the fewest."""
        return min(self.ready, key=lambda each: (self._router.loads[each], each))

    def let_go(self, name: str) -> None:
        """Choose a replica no more and end it once its jobs have ended; those that have not begun move."""
        self._leaving[name].set()
        self._router.remove(name)
        self._in_background(self._leave(name))
        self._tell_change()

    async def _leave(self, name: str) -> None:
        while self._inside[name]:
            await self._changed.wait()
        self._reports.forget(name)
        self._fleet.stop(name)
        del self._leaving[name]
        self._tell_change()

    def status(self) -> EngineStatus:
        """Return the sum over the replicas as they last reported, and each one's own."""
        leaving = {name: event.is_set() for name, event in list(self._leaving.items())}
        return replace(self._reports.status(leaving), ready=bool(self.ready))

    def model_states(self) -> Sequence[ModelState]:
        """Tell of each model whether one replica has it in memory."""
        return self._reports.model_states()

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._work.add(task)
        task.add_done_callback(self._work.discard)

    def close(self) -> None:
        """Start and ask none any more."""
        self.is_closed = True
        for task in list(self._work):
            task.cancel()
