"""Where a job goes: to which replica, and what that one needs for it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from sdgrpc.domain import LoraRef
from sdgrpc.engine.cluster.fleet import Fleet, ReplicaDied
from sdgrpc.engine.cluster.keeper import Keeper
from sdgrpc.engine.cluster.routing.holdings import Wanted
from sdgrpc.engine.cluster.routing.router import Router
from sdgrpc.engine.cluster.set_names import SetNames
from sdgrpc.errors import LoraNotFound, SdgrpcError

ASK_SECONDS = 0.05
"""The longest that a job waits for replicas to say whether they hold its set; an answer takes some 3 ms."""


class Placing:
    """Chooses replicas, and has files brought to them. On the server's event loop.

    The router knows sets by the names that requests use. One that was fused by other names, by a hash instead
    of a name, it does not recognise; so where nobody is known to hold a set the replicas are asked.
    """

    def __init__(self, fleet: Fleet, router: Router, keeper: Keeper, sets: SetNames) -> None:
        self._fleet, self._router, self._keeper, self._sets = fleet, router, keeper, sets
        self._asking: dict[str, asyncio.Task[None]] = {}

    async def place(
        self,
        wanted: Wanted,
        refused: dict[str, SdgrpcError],
        *,
        loras: Sequence[LoraRef] = (),
        patient: bool = False,
    ) -> str:
        """Choose a replica, waiting until there is one; raises what all of them refused it with.

        A `patient` job was accepted once, so that full queues are not its client's to see: it waits for room.
        """
        if loras and not any(lora.content for lora in loras):
            await self._look_for(wanted, loras)
        while (choice := self._router.choose(wanted, without=refused)) is None:
            if self._keeper.ready:
                refusal = next(iter(refused.values()))
                if not patient or isinstance(refusal, LoraNotFound):
                    raise refusal
                refused.clear()
            await self._keeper.changed()
        return choice.name

    async def _look_for(self, wanted: Wanted, loras: Sequence[LoraRef]) -> None:
        """Ask who holds a set that nobody is known to hold; once for all jobs that want it now."""
        if self._router.knows(wanted) or len(self._keeper.ready) < 2:
            return
        key = wanted.set_key
        if (asking := self._asking.get(key)) is None:
            asking = self._asking[key] = asyncio.create_task(self._ask(wanted, loras))
            asking.add_done_callback(lambda _: self._asking.pop(key))
        await asyncio.shield(asking)  # a job that is cancelled leaves it to the others

    async def _ask(self, wanted: Wanted, loras: Sequence[LoraRef]) -> None:
        """Have all replicas asked at once, for a short time; whoever is late or dies holds nothing."""
        asked = [asyncio.create_task(self._hear(name, wanted, loras)) for name in self._keeper.ready]
        try:
            await asyncio.wait(asked, timeout=ASK_SECONDS)
        finally:
            for one in asked:
                one.cancel()

    async def _hear(self, name: str, wanted: Wanted, loras: Sequence[LoraRef]) -> None:
        try:
            set_id = await self._fleet.ask(name, "fused", wanted.model, list(loras))
        except ReplicaDied:  # its jobs notice
            return
        if set_id:
            self._sets.learn(wanted, set_id)  # reports are understood from now on
            self._router.learn(name, wanted)

    async def fetched(self, loras: tuple[LoraRef, ...], name: str) -> bool:
        """Give a replica the files of a job that others have and it has not; tell whether any came."""
        refs = [ref for ref in loras if not ref.content]
        try:
            copied = [await self._copied(ref, name) for ref in refs]
        except ReplicaDied:
            return False
        return any(copied)

    async def _copied(self, ref: LoraRef, name: str) -> bool:
        if await self._fleet.ask(name, "has", ref):
            return False
        for other in self._keeper.ready:
            if other != name and await self._fleet.ask(other, "has", ref):
                return await self._fleet.copy("content_of", other, "keep", name, ref)
        return False
