"""A registry of kept jobs without Ray: in this process, asked by several servers, mortal as an actor is."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Sequence
from typing import Any

from sdgrpc.engine.cluster.kept.registry import JobRegistry
from sdgrpc.engine.keeping.records import KeptRequest, Key, Telling
from sdgrpc.engine.keeping.sharing import Unreachable

BOUNDS = 300.0, 1 << 30


class FakeRegistry:
    """The actor. `restart` loses all it knows; while `is_away` nobody reaches it. `told` are all tellings."""

    def __init__(self) -> None:
        self.is_away = False
        self.told: list[Telling] = []
        self.restart()

    def restart(self) -> None:
        self.actor = JobRegistry(*BOUNDS)

    def door(self, name: str) -> FakeShared:
        return FakeShared(self, name)

    def bury(self, door: FakeShared) -> None:
        """Have a server that died be noticed."""
        door.is_dead = True
        self.actor._doors.leave(door.name)


class FakeShared:
    """Obeys `SharedJobs` for one server. What passes is pickled, as it is between processes."""

    def __init__(self, registry: FakeRegistry, name: str) -> None:
        self._registry, self.name = registry, name
        self.is_there, self.is_dead = False, False
        self.asked: list[str] = []

    async def _ask(self, method: str, *args: Any) -> Any:
        self.asked.append(method)
        await asyncio.sleep(0)
        actor = self._registry.actor
        if not self._registry.is_away and not self.is_dead:
            answer = await getattr(actor, method)(*pickled(args))
            if actor is self._registry.actor and not self._registry.is_away and not self.is_dead:
                return pickled(answer)
        raise Unreachable("FakeError")

    async def claim(self, request: KeptRequest, replaces: str) -> Any:
        return await self._ask("claim", self.name, request, replaces)

    async def tell(self, tellings: Sequence[Telling]) -> Any:
        self._registry.told += tellings
        return await self._ask("tell", self.name, tellings)

    async def listen(self, *, takes: bool) -> Any:
        try:
            orders = await self._ask("listen", self.name, *BOUNDS, takes)
        except Unreachable:
            self.is_there = False
            raise
        self.is_there = True
        return orders

    async def take(self, key: Key) -> Any:
        return await self._ask("take", self.name, key)

    async def find(self, key: Key) -> Any:
        return await self._ask("find", key)

    async def read(self, key: Key, run: str, place: int) -> Any:
        return await self._ask("read", key, run, place)

    async def jobs_of(self, caller: str, after: tuple[float, str], count: int) -> Any:
        return await self._ask("jobs_of", caller, after, count)

    async def cancel(self, key: Key, run: str = "") -> Any:
        return await self._ask("cancel", key, run)

    async def leave(self) -> None:
        await self._ask("leave", self.name)


def pickled(value: Any) -> Any:
    """What arrives of a value in another process."""
    return pickle.loads(pickle.dumps(value))  # noqa: S301
